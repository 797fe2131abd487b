<?php
include $_GET["page"];
echo $_GET["name"];
