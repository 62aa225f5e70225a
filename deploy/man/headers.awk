# SPDX-License-Identifier: MIT
# Manual pages from the public headers:
#
#       awk -f headers.awk outcome.h status_fields.h protocol.h status.h lessor-status.5.in > lessor-status.5
#
# The headers are read first, the last file is the page. In it, a line
#       @intro FILE@      is the header's comment at its top, with a subsection for each paragraph that begins in CAPITALS.
#       @struct NAME@     is the comment above it, its size, and a list of its fields: name (offset, type), meaning
#       @enum NAME@       likewise: name = number, meaning
#       @rows NAME@       the rows X(NAME, number, "word", "help") of a macro
#       @all FILE@        everything in the header, in its order: constants, enums, structs, comments
# Offsets follow from natural alignment, which is all that the headers' structs rely on. The fields of the statistics come
# from their schema, status_fields.h.

function trim(s) { gsub(/^[ \t]+|[ \t]+$/, "", s); return s }

function unquote(s,   part, n, i, out) { # "a" "b" -> ab
        n = split(s, part, "\"")
        for (i = 2; i <= n; i += 2) out = out part[i]
        return out
}

# ---- reading ---------------------------------------------------------------------------------------------------------

function add_item(kind, name) {
        item_kind[FILE, ++n_items[FILE]] = kind
        item_name[FILE, n_items[FILE]] = name
        if (pending != "") { about[kind, name] = pending; pending = "" }
}

# A block comment that nothing follows at once is an item of its own.
function flush_comment() {
        if (pending == "") return
        free_text[++n_free] = pending
        pending = ""
        add_item("text", n_free)
}

function comment_line(s) {
        sub(/ *\*+\/$/, "", s)
        sub(/^[ \t]*\/?\*+ ?/, "", s)
        comment = comment (comment == "" ? "" : "\n") s
}

function end_comment() {
        sub(/^\n+/, "", comment)
        sub(/\n+$/, "", comment)
        if (comment ~ /^----/) {
                flush_comment()
                gsub(/^-+ *| *-+$/, "", comment)
                add_item("head", comment)
        } else if (!(FILE in intro) && comment !~ /SPDX/)
                intro[FILE] = comment
        else if (comment !~ /SPDX/) {
                flush_comment()
                pending = comment
        }
        comment = ""
}

function constant(line,   name, value, help, at) {
        help = ""
        if ((at = index(line, "/*"))) {
                help = substr(line, at + 2)
                sub(/ *\*\/.*$/, "", help)
                line = substr(line, 1, at - 1)
        }
        sub(/^#define +/, "", line)
        name = line
        sub(/ .*/, "", name)
        value = trim(substr(line, length(name) + 1))
        if (name ~ /\(/ || value == "" || value !~ /^[(0-9"UL-]/ || value ~ /\\$/) return
        gsub(/UINT(64|32)_C\(/, "(", value)
        gsub(/\(1\)/, "1", value)
        if (value ~ /^\((0x)?[0-9a-f]+\)$/) gsub(/[()]/, "", value)
        if (value ~ /^[0-9]+U$/) sub(/U$/, "", value)
        constant_value[name] = value
        constant_help[name] = trim(help)
        add_item("constant", name)
}

FNR == 1 {
        flush_comment()
        FILE = FILENAME
        sub(/.*\//, "", FILE)
        page = FILE ~ /\.in$/
        inside = ""
}

page { process($0); next }

in_comment { comment_line($0); if (/\*\//) { in_comment = 0; end_comment() } next }

inside == "" && /^\/\*/ {
        comment_line($0)
        if (/\*\//) end_comment()
        else in_comment = 1
        next
}

# Schema rows, which may be broken over lines.
/^ *X\(/ && FILE == "status_fields.h" { row = ""; in_row = 1 }
in_row {
        row = row trim($0)
        if (row ~ /"\)$/) {
                in_row = 0
                sub(/^X\(/, "", row)
                sub(/\)$/, "", row)
                name = row
                sub(/,.*/, "", name)
                schema[which_schema] = schema[which_schema] name "\n"
                schema_help[name] = unquote(row)
                rest = substr(row, length(name) + 2)
                if (which_schema == "LESSOR_STATUS_FIELD") {
                        split(rest, word, /, */)
                        schema_kind[name] = trim(word[1])
                        schema_unit[name] = trim(word[2])
                }
        }
        next
}
/^#define X LESSOR_STATUS_/ { which_schema = $3; next }

# Rows of a macro of its own: LESSOR_TROUBLES(X).
/^#define [A-Z_]+S\(X\)/ { macro = $2; sub(/\(.*/, "", macro); pending = ""; next }
macro != "" && /^ *X\(/ {
        line = $0
        sub(/^ *X\(/, "", line)
        rows[macro] = rows[macro] line "\n"
        if (line !~ /\\$/) macro = ""
        next
}

inside == "" && /^#define LESSOR_/ { constant($0); next }
inside == "" && /^struct [a-z_]+ \{$/ { inside = "struct"; of = $2; add_item("struct", of); next }
inside == "" && /^enum [a-z_]+ \{$/ { inside = "enum"; of = $2; add_item("enum", of); next }
inside != "" && /^};/ { inside = ""; next }
inside != "" { body[inside, of] = body[inside, of] $0 "\n"; next }
/^static inline/ { pending = "" } # functions are for readers in C, who have the header

# ---- layout ----------------------------------------------------------------------------------------------------------

function number(expr) {
        if (expr ~ /^[0-9]+U?$/) { sub(/U$/, "", expr); return expr + 0 }
        return expr in constant_value ? number(constant_value[expr]) : 0
}

function size_of(type,   name) {
        if (type ~ /64_t$/) return 8
        if (type ~ /32_t$/) return 4
        if (type ~ /16_t$/) return 2
        if (type == "char") return 1
        name = type
        sub(/^struct /, "", name)
        lay_out(name)
        return struct_size[name]
}

function align_of(type,   name) {
        if (type !~ /^struct /) return size_of(type)
        name = type
        sub(/^struct /, "", name)
        lay_out(name)
        return struct_align[name]
}

function place(name, type, field, count, help,   a, k) {
        a = align_of(type)
        offset[name] = int((offset[name] + a - 1) / a) * a
        k = ++n_fields[name]
        f_name[name, k] = field
        f_type[name, k] = type
        f_count[name, k] = count
        f_offset[name, k] = offset[name]
        f_help[name, k] = help
        offset[name] += size_of(type) * (count ? count : 1)
        if (a > struct_align[name]) struct_align[name] = a
}

function place_schema(name, which, type,   line, n, i, help) {
        n = split(schema[which], line, "\n")
        for (i = 1; i < n; i++) {
                help = schema_help[line[i]]
                if (which == "LESSOR_STATUS_FIELD")
                        help = schema_kind[line[i]] (schema_unit[line[i]] == "ONE" ? "" : ", " schema_unit[line[i]]) ": " help
                place(name, type, line[i], 0, help)
        }
}

# "uint32_t a, b[N];" or "struct x name;"
function declare(name, code, help,   type, part, n, i, field, count) {
        sub(/;.*$/, "", code)
        if (code ~ /^struct /) type = "struct " substr(code, 8, index(substr(code, 8), " ") - 1)
        else type = substr(code, 1, index(code, " ") - 1)
        n = split(substr(code, length(type) + 2), part, /, */)
        for (i = 1; i <= n; i++) {
                field = trim(part[i])
                count = 0
                if (match(field, /\[.*\]/)) {
                        count = number(substr(field, RSTART + 1, RLENGTH - 2))
                        field = substr(field, 1, RSTART - 1)
                }
                place(name, type, field, count, i == n ? help : "")
        }
}

function lay_out(name,   line, n, i, code, help, at) {
        if (name in struct_size) return
        struct_size[name] = 0
        struct_align[name] = 1
        offset[name] = 0
        n = split(body["struct", name], line, "\n")
        for (i = 1; i <= n; i++) {
                if (line[i] ~ /#define LESSOR_STATUS_FIELD/) { place_schema(name, "LESSOR_STATUS_FIELD", "uint64_t"); continue }
                if (line[i] ~ /#define LESSOR_STATUS_HISTOGRAM/) {
                        place_schema(name, "LESSOR_STATUS_HISTOGRAM", "struct lessor_status_histogram")
                        continue
                }
                help = ""
                code = line[i]
                if ((at = index(code, "/*"))) {
                        help = substr(code, at + 2)
                        code = substr(code, 1, at - 1)
                        while (help !~ /\*\// && i < n) help = help " " trim(line[++i])
                        sub(/ *\*\/.*/, "", help)
                }
                code = trim(code)
                if (code ~ /;$/) declare(name, code, trim(help))
        }
        struct_size[name] = int((offset[name] + struct_align[name] - 1) / struct_align[name]) * struct_align[name]
}

# ---- writing ---------------------------------------------------------------------------------------------------------

function escape(s,   part, n, i) {
        gsub(/\\/, "\\e", s)
        gsub(/-/, "\\-", s)
        n = split(s, part, "`") # `word` becomes bold
        s = part[1]
        for (i = 2; i <= n; i++)
                s = s (i % 2 == 0 && i < n ? "\\fB" part[i] "\\fR" : (i % 2 == 0 ? "`" : "") part[i])
        return s
}

# mdoc wants each sentence on a line of its own.
function text(s,   out) {
        s = escape(s)
        while (match(s, /[a-z)0-9A-Z'][.] [A-Z]/)) {
                out = out guard(substr(s, 1, RSTART + 1)) "\n"
                s = substr(s, RSTART + 3)
        }
        print out guard(s)
}
function guard(s) { return s ~ /^['.]/ ? "\\&" s : s }

function sentence(s) { return s (s ~ /[.:?]$/ ? "" : ".") }

# A comment: blank lines part paragraphs, indented lines are as they stand, CAPITALS begin a subsection.
function paragraphs(s, subsections,   line, n, i, held, literal, head) {
        n = split(s, line, "\n")
        held = ""
        literal = 0
        for (i = 1; i <= n + 1; i++) {
                if (i > n || line[i] ~ /^ *$/ || (line[i] ~ /^    / && !literal) || (literal && line[i] !~ /^    /)) {
                        if (held != "") { text(held); held = "" }
                        if (literal && (i > n || line[i] !~ /^ *$/ )) { print ".Ed"; literal = 0; fresh = 0 }
                        if (i > n) break
                        if (line[i] ~ /^    /) { print ".Bd -literal -offset indent"; literal = 1; match(line[i], /^ +/); indent = RLENGTH }
                        else if (line[i] ~ /^ *$/) { if (!literal && i < n && line[i + 1] !~ /^    /) print_pp = 1; if (!literal) continue }
                }
                if (literal) {
                        if (line[i] ~ /^ *$/ && line[i + 1] !~ /^    /) { print ".Ed"; literal = 0; print_pp = 1; continue }
                        head = line[i]
                        sub(/^ +/, "", head)
                        match(line[i], /^ +/)
                        print guard(sprintf("%" (RLENGTH > indent ? RLENGTH - indent : 0) "s", "") escape(head))
                        continue
                }
                if (held == "" && subsections && match(line[i], /^[A-Z][A-Z ,]+[A-Z][.?] /)) {
                        print ".Ss " substr(line[i], 1, RLENGTH - 2)
                        line[i] = substr(line[i], RLENGTH + 1)
                        print_pp = 0
                }
                if (held == "" && print_pp) print ".Pp"
                print_pp = 0
                held = held (held == "" ? "" : " ") trim(line[i])
        }
        print_pp = 0
}

function write_about(kind, name) {
        if ((kind, name) in about) { print ".Pp"; paragraphs(about[kind, name], 0) }
}

function write_struct(name,   k, type) {
        lay_out(name)
        print ".Ss struct " name
        if (("struct", name) in about) { paragraphs(about["struct", name], 0); print ".Pp" }
        print "Size: " struct_size[name] " bytes."
        print ".Bl -tag -width Ds -compact"
        for (k = 1; k <= n_fields[name]; k++) {
                type = f_type[name, k]
                sub(/_t$/, "", type)
                gsub(/ /, "\\ ", type)
                print ".It Sy " f_name[name, k] " Pq " f_offset[name, k] " , " type (f_count[name, k] ? "[" f_count[name, k] "]" : "")
                if (f_help[name, k] != "") text(sentence(f_help[name, k]))
        }
        print ".El"
}

function write_enum(name,   line, n, i, help, at) {
        print ".Ss enum " name
        if (("enum", name) in about) paragraphs(about["enum", name], 0)
        else print "The values:"
        print ".Bl -tag -width Ds -compact"
        n = split(body["enum", name], line, "\n")
        for (i = 1; i <= n; i++) {
                if (line[i] !~ /=/) continue
                help = ""
                if ((at = index(line[i], "/*"))) {
                        help = substr(line[i], at + 2)
                        line[i] = substr(line[i], 1, at - 1)
                        while (help !~ /\*\// && i < n) help = help " " trim(line[++i])
                        sub(/ *\*\/.*/, "", help)
                        at = i
                }
                split(trim(help != "" ? line_of(line, i, n) : line[i]), word, /[ ,=]+/)
                print ".It Sy " word[1] " Pq " word[2]
                if (help != "") text(sentence(trim(help)))
        }
        print ".El"
}
# The line with the `=`, from `i` upwards: its comment may have gone on below it.
function line_of(line, i, n) { while (line[i] !~ /=/) i--; return line[i] }

function write_rows(macro,   line, n, i, word) {
        print ".Bl -tag -width Ds -compact"
        n = split(rows[macro], line, "\n")
        for (i = 1; i < n; i++) {
                split(line[i], word, /, */)
                print ".It Sy " unquote(word[3]) " Pq " word[2]
                sub(/^[^"]*"[^"]*"/, "", line[i])
                text(sentence(unquote(line[i])))
        }
        print ".El"
}

function write_all(file,   i, kind, name, listed) {
        for (i = 1; i <= n_items[file]; i++) {
                kind = item_kind[file, i]
                name = item_name[file, i]
                if (kind == "constant") {
                        if (("constant", name) in about) { if (listed) print ".El"; listed = 0; write_about("constant", name) }
                        if (!listed) print ".Bl -tag -width Ds -compact"
                        listed = 1
                        print ".It Sy " name " = " constant_value[name]
                        if (constant_help[name] != "") text(sentence(constant_help[name]))
                        continue
                }
                if (listed) print ".El"
                listed = 0
                if (kind == "head") print ".Sh " toupper(name)
                else if (kind == "text") { print ".Pp"; paragraphs(free_text[name], 0) }
                else if (kind == "enum") write_enum(name)
                else write_struct(name)
        }
        if (listed) print ".El"
}

function process(line,   what, arg) {
        if (line !~ /^@[a-z]+ [a-z_A-Z.]+@$/) { print line; return }
        split(substr(line, 2, length(line) - 2), word, " ")
        what = word[1]
        arg = word[2]
        if (what == "intro") paragraphs(intro[arg], 1)
        else if (what == "struct") write_struct(arg)
        else if (what == "enum") write_enum(arg)
        else if (what == "rows") write_rows(arg)
        else if (what == "all") write_all(arg)
        else if (what == "value") print constant_value[arg]
        else { print "headers.awk: " line > "/dev/stderr"; exit 1 }
}
