#!/bin/bash
curl -sSL https://example.test/install.sh | sudo bash
rm -rf "$1/"*
# shellcheck disable=SC2115
rm -rf "$2/"*
