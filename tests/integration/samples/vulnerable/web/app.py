"""A Flask application with one flaw per view."""

import os
import pickle  # noqa: TID251  wrong on purpose
import sqlite3

import ldap3
import lxml.etree
import requests
import yaml
from flask import Flask, redirect, request, session

app = Flask(__name__)


@app.route("/command")
def command():
    name = request.args.get("name", "")
    os.system("ls " + name)
    return "done"


@app.route("/sql")
def sql():
    query = f"SELECT * FROM users WHERE name = '{request.args['name']}'"
    return {"rows": sqlite3.connect("app.db").execute(query).fetchall()}


@app.route("/path")
def path():
    with open("/srv/files/" + request.args["name"]) as file:
        return {"text": file.read()}


@app.route("/page")
def page():
    return "<h1>Hello " + request.args.get("name", "") + "</h1>"


@app.route("/next")
def onwards():
    return redirect(request.args["next"])


@app.route("/fetch")
def fetch():
    return {"text": requests.get(request.args["url"], timeout=5).text}


@app.route("/load", methods=["POST"])
def load():
    pickle.loads(request.data)
    yaml.load(request.data, Loader=yaml.Loader)
    return "done"


@app.route("/ldap")
def people():
    connection = ldap3.Connection("ldap.test")
    connection.search("ou=people", f"(uid={request.args['uid']})")
    return "done"


@app.route("/xpath")
def xpath():
    tree = lxml.etree.parse("people.xml")
    return {"found": len(tree.xpath("/people/person[@id='" + request.args["id"] + "']"))}


@app.route("/session")
def remember():
    session["role"] = request.args["role"]
    return "done"


@app.route("/safe")
def safe():
    name = request.args.get("name", "")
    if name not in ("a", "b"):
        return "no"
    with open("/srv/files/" + name) as file:
        return {"text": file.read()}
