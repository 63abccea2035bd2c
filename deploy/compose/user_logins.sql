-- The target table, as its users already have it. The database's image runs this once, when its volume
-- is new. `sqs2pg migrate` finds the table and leaves it as it is.
CREATE TABLE user_logins (
    user_id          varchar(128),
    device_type      varchar(32),
    masked_ip        varchar(256),
    masked_device_id varchar(256),
    locale           varchar(32),
    app_version      integer,
    create_date      date
);
