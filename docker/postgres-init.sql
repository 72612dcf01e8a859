-- Label Studio's own database, beside that of alc-backend.
CREATE DATABASE labelstudio OWNER alc;
