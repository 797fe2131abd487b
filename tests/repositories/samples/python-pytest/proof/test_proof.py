from invoices.money import cents


def test_decimals_and_signs():
    assert [cents(each) for each in ("19.5", "-1.50", "-0.05", "2", "0.1")] == [1950, -150, -5, 200, 10]
