"""Lets every process use the SQLite of a wheel. Under the name `sitecustomize`, Python imports it at its start."""

import sys

import pysqlite3
import pysqlite3.dbapi2

sys.modules["sqlite3"] = pysqlite3
sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2
