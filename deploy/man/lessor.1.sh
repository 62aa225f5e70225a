#!/bin/sh
# SPDX-License-Identifier: MIT
# lessor(1) from the program itself: lessor.1.sh PATH/lessor > lessor.1. The frame stands here; commands, options and what they
# mean are what `lessor help COMMAND` says, so that page and program cannot drift apart.
set -eu
lessor=$1

cat <<'PAGE'
.\" SPDX-License-Identifier: MIT
.\" Made by lessor.1.sh from lessor help: do not edit.
.Dd November 24, 2026
.Dt LESSOR 1
.Os
.Sh NAME
.Nm lessor
.Nd look at and order about the broker of this host's Redis connections
.Sh SYNOPSIS
.Nm
.Ar command
.Op Ar argument ...
.Nm
.Cm help
.Op Ar command
.Nm
.Fl -version
.Sh DESCRIPTION
.Nm
shows the state of every pool of
.Xr lessord 8 ,
and gives the broker orders.
What it shows comes from the broker's status segment in shared memory,
.Xr lessor-status 5 :
looking disturbs nothing, and works when the broker is dead, too; the figures are then said to be stale.
.Sh COMMANDS
PAGE

for command in $("$lessor" help | awk '$1 == "lessor" && $2 != "help" && /^  / { print $2 }'); do
        "$lessor" help "$command" | awk '
        function escape(s) {
                gsub(/\\/, "\\e", s)
                gsub(/-/, "\\-", s)
                n = split(s, part, "`") # `word` becomes bold
                s = part[1]
                for (i = 2; i <= n; i++)
                        s = s (i % 2 == 0 && i < n ? "\\fB" part[i] "\\fR" : (i % 2 == 0 ? "`" : "") part[i])
                s = sentences(s)
                return s ~ /^['"'"'.]/ ? "\\&" s : s
        }
        # mdoc wants each sentence on a line of its own.
        function sentences(s,   out) {
                while (match(s, /[a-zA-Z)0-9][.] [A-Z]/)) {
                        out = out substr(s, 1, RSTART + 1) "\n"
                        s = substr(s, RSTART + 3)
                }
                return out s
        }
        function close_list() { if (listed) print ".El"; listed = 0 }
        NR == 1 {
                split($0, title, ": ")
                print ".Ss " title[1]
                s = substr($0, length(title[1]) + 3)
                print escape(toupper(substr(s, 1, 1)) substr(s, 2)) (s ~ /[.?]$/ ? "" : ".")
                next
        }
        /^Usage: / {
                print ".Bd -ragged -offset indent"
                print escape(substr($0, 8))
                print ".Ed"
                started = 1
                usage = 1
                next
        }
        usage && /^ / { next_line = $0; sub(/^ +/, "", next_line); print ".br\n" escape(next_line); next }
        /^$/ { close_list(); blank = 1; usage = 0; next }
        /^  [^ ]/ { # an option and its meaning, two columns
                if (!listed) print ".Bl -tag -width Ds"
                listed = 1
                match($0, /^  [^ ]+( [^ ]+)*(  +|$)/)
                tag = substr($0, 3, RLENGTH - 2)
                rest = substr($0, RLENGTH + 1)
                sub(/ +$/, "", tag)
                if (rest == "" && match(tag, / /) && tag ~ /^--[^ ]*\[/) { rest = substr(tag, RSTART + 1); tag = substr(tag, 1, RSTART - 1) }
                print ".It Sy " escape(tag)
                if (rest != "") print escape(rest)
                blank = 0
                next
        }
        /^ / { sub(/^ +/, ""); print escape($0); next }
        {
                close_list()
                if (blank) print ".Pp"
                blank = 0
                print escape($0)
        }
        END { close_list() }'
done

cat <<'PAGE'
.Sh METRICS
.Nm Cm metrics
tells every figure of
.Xr lessor-status 5
as
.Sy lessor_ Ns Ar name ,
with the label
.Sy database ;
durations and times in seconds, as
.Sy lessor_ Ns Ar name Ns Sy _seconds ,
counters as
.Sy lessor_ Ns Ar name Ns Sy _total ,
histograms with
.Sy _bucket , _sum
and
.Sy _count .
Besides:
.Bl -tag -width Ds -compact
.It Sy lessor_up
1: the broker gives signs of life; 0: it is dead, hangs, or none has run here
.It Sy lessor_build_info
its release and instance, as labels
.It Sy lessor_heartbeat_age_seconds
since its last sign of life
.It Sy lessor_uptime_seconds
since its start
.It Sy lessor_sessions
worker processes attached now
.It Sy lessor_sessions_attached_total
worker processes attached since the start
.It Sy lessor_sessions_refused_total
worker processes refused
.It Sy lessor_reloads_total
configurations taken over
.It Sy lessor_reloads_failed_total
configurations refused
.It Sy lessor_overall_healthy
1: the broker is alive, and no database degraded or failed
.It Sy lessor_databases
databases by state
.It Sy lessor_oldest_lease_seconds
how long the longest lease has been held
.El
.Pp
Some are told by the names of OpenTelemetry's conventions for database clients, with the label
.Sy db_client_connection_pool_name ;
these three histograms by those names alone:
.Bl -tag -width Ds -compact
.It Sy db_client_connection_count
connections idle and used
.It Sy db_client_connection_max
.Sy max_connections
.It Sy db_client_connection_pending_requests
.Sy waiting
.It Sy db_client_connection_timeouts_total
.Sy lease_timeouts
.It Sy db_client_connection_wait_time_seconds
.Sy wait_time
.It Sy db_client_connection_use_time_seconds
.Sy hold_time
.It Sy db_client_operation_duration_seconds
.Sy call_time
.El
.Sh ENVIRONMENT
.Bl -tag -width LESSOR_INSTANCE
.It Ev LESSOR_INSTANCE
the broker to look at; unless set,
.Sy default
.It Ev LESSOR_SOCKET
the socket at which programs of liblessor, and
.Nm Cm bench Fl -socket ,
attach
.It Ev LESSORD
the lessord that
.Nm Cm bench
starts
.El
.Sh FILES
.Bl -tag -width Ds
.It Pa /dev/shm/lessor. Ns Ar instance
the status segment
.It Pa /run/lessor/ Ns Ar instance Ns Pa .sock
where programs attach
.El
.Sh EXIT STATUS
Each command above says its own.
Everywhere, 64 is wrong usage, and 71 trouble of the system's making.
.Sh EXAMPLES
Who keeps the connections of the database
.Sy main ,
and since when?
.Dl lessor leases main
.Pp
Why is a database not healthy?
.Dl lessor health
.Pp
All there is to know of one:
.Dl lessor stat main
.Sh SEE ALSO
.Xr lessor 3 ,
.Xr lessor-status 5 ,
.Xr lessor.yaml 5 ,
.Xr lessor-protocol 7 ,
.Xr lessord 8
PAGE
