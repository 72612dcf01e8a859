#!/bin/sh
# One role and one database for each program that has a password here. The roles are no superusers:
# one program's password opens neither the other's database nor the server's files.
set -eu

create() {
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --set name="$1" --set variable="$2" <<'SQL'
\getenv password :variable
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

create alc ALC_DB_PASSWORD
if [ -n "${LABEL_STUDIO_DB_PASSWORD-}" ]; then
    create labelstudio LABEL_STUDIO_DB_PASSWORD
fi
