from tickets import DESKS, draw


def test_a_ticket_names_a_desk():
    assert draw().desk in DESKS
