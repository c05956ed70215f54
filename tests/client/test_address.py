"""Where the client looks for its server and its key."""

from pathlib import Path

import pytest

from service.client.address import DEFAULT_URL, find_address
from service.errors import ServiceError


def test_the_default_is_the_server_of_sama_serve() -> None:
    address = find_address(environment={})
    assert (address.base_url, address.socket, address.is_local) == (DEFAULT_URL, None, True)


def test_the_environment_names_server_and_key() -> None:
    address = find_address(environment={"SAMA_URL": "https://sama.example/", "SAMA_API_KEY": "secret-key"})
    assert (address.base_url, address.api_key, address.is_local) == ("https://sama.example", "secret-key", False)
    assert "secret-key" not in repr(address)


def test_arguments_come_before_the_environment() -> None:
    address = find_address("http://one:1", "mine", {"SAMA_URL": "http://two:2", "SAMA_API_KEY": "other"})
    assert (address.base_url, address.api_key) == ("http://one:1", "mine")


def test_a_unix_socket_is_an_address() -> None:
    address = find_address("unix:///run/my%20sama.sock", environment={})
    assert (address.socket, address.base_url, address.is_local) == (
        Path("/run/my sama.sock"),
        "http://localhost",
        True,
    )


def test_the_key_file_of_this_machine_goes_to_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("sama_key\n")
    environment = {"SAMA_DATA_DIR": str(tmp_path)}
    assert find_address("http://localhost:8000", environment=environment).api_key == "sama_key"
    assert find_address("https://sama.example", environment=environment).api_key is None


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "unix://relative/path", "http://", "unix:"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ServiceError, match="wanted http://HOST:PORT") as refused:
        find_address(url, environment={})
    assert refused.value.code == "invalid_url"
    assert repr(url) in refused.value.message
