from tickets import DESKS, draw


def test_all_desks_take_their_turn(tmp_path):
    assert {draw(tmp_path).desk for _ in range(6)} == set(DESKS)
