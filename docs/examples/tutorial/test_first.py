from pytest_hil import Target


def test_kernel(hil: Target) -> None:
    assert hil.run("uname -s").stdout == "Linux\n"
