# SPDX-License-Identifier: MIT
# lessor.yaml(5) from the schema: `lessord --help-config | awk -f lessor.yaml.5.awk`. The page's own text stands here, the
# keys come from broker/config/schema.h, so that page and parser cannot drift apart.

function escape(s) {
        gsub(/\\/, "\\e", s)
        gsub(/`[^`]*`/, "\001&\001", s) # `key` becomes bold
        n = split(s, part, "\001")
        s = ""
        for (i = 1; i <= n; i++)
                s = s (part[i] ~ /^`.*`$/ ? "\\fB" substr(part[i], 2, length(part[i]) - 2) "\\fR" : part[i])
        return s ~ /^['.]/ ? "\\&" s : s
}

function sentence(s) { return toupper(substr(s, 1, 1)) substr(s, 2) (s ~ /\.$/ ? "" : ".") }

function flush_key() {
        if (key == "")
                return
        if (of != last_of) {
                if (last_of != "")
                        print ".El"
                print ".Sh " (of == "broker" ? "KEYS OF THE BROKER" : "KEYS OF A DATABASE")
                print of == "broker" ? "At the top level only." : "In a database, or at the top level as the default of all of them."
                print ".Bl -tag -width Ds"
                last_of = of
        }
        print ".It Sy " key " Pq " type
        print escape(sentence(help))
        print ".br"
        line = field["default"] != "" ? "Default: " escape(field["default"]) : "No default"
        if (field["range"] != "")
                line = line "; range: " escape(field["range"])
        if (field["unit"] != "")
                line = line "; a plain number is in " escape(field["unit"])
        print line "."
        print ".br"
        print "Environment: " escape(field["environment"]) "."
        print "At a reload: " escape(field["reload"]) "."
        key = ""
        delete field
}

BEGIN {
        print ".\\\" SPDX-License-Identifier: MIT"
        print ".\\\" Made by lessor.yaml.5.awk from lessord --help-config: do not edit."
        print ".Dd November 23, 2026"
        print ".Dt LESSOR.YAML 5"
        print ".Os"
        print ".Sh NAME"
        print ".Nm lessor.yaml"
        print ".Nd configuration of lessord, the broker of Redis connections"
        print ".Sh DESCRIPTION"
        print "A YAML file with the broker's own keys and a map of databases,"
        print ".Sy redis_databases"
        print "or"
        print ".Sy databases ,"
        print "from name to keys:"
        print ".Bd -literal -offset indent"
        print "max_connections: 20"
        print "databases:"
        print "  main: {db: 0}"
        print "  audit: {db: 10, max_connections: 15, socket_timeout: 3s}"
        print ".Ed"
        print ".Pp"
        print "It is looked for at the path given by"
        print ".Fl c ,"
        print "then at"
        print ".Ev LESSOR_CONFIG ,"
        print "then at"
        print ".Pa /etc/lessor/lessor.yaml ."
        print "Without a file there is one database,"
        print ".Sy main :"
        print "db 0 at 127.0.0.1:6379."
        print ".Pp"
        print "For one database and one key, the first of these counts:"
        print ".Fl -set Ar DB.KEY=VALUE ;"
        print ".Ev LESSOR_REDIS_DB_KEY ;"
        print "the database's own key in the file;"
        print ".Fl -set Ar KEY=VALUE ;"
        print ".Ev LESSOR_REDIS_KEY ;"
        print "the top level of the file; the default."
        print "Durations have a unit"
        print ".Pq 250ms, 5s, 1m, 2h, 1d ;"
        print "a plain number is seconds."
        print "Sizes have a unit"
        print ".Pq 64KiB, 1MiB ;"
        print "a plain number is bytes."
        print "A database name is 1 to 63 letters, digits, and"
        print ".Ql _ . - ."
}

/^$/ { flush_key(); next }
{
        name = $1
        sub(/:$/, "", name)
        value = $0
        sub(/^[^:]*: ?/, "", value)
        if (name == "key") key = value
        else if (name == "of") of = value
        else if (name == "type") type = value
        else if (name == "help") help = value
        else field[name] = value
}

END {
        flush_key()
        print ".El"
        print ".Sh FILES"
        print ".Bl -tag -width Ds"
        print ".It Pa /etc/lessor/lessor.yaml"
        print ".It Ev $CREDENTIALS_DIRECTORY Ns Pa /DB.password"
        print "A database's password as a systemd credential;"
        print ".Pa /password"
        print "serves all databases."
        print ".El"
        print ".Sh SEE ALSO"
        print ".Ql lessord --check-config"
        print "names every error with its line and what to write instead,"
        print ".Ql lessord --print-config"
        print "where each value in force comes from."
        print "The annotated example is"
        print ".Pa lessor.example.yaml ."
}
