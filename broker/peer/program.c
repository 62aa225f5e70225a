/* SPDX-License-Identifier: MIT */
#include "program.h"

#include <stdio.h>
#include <string.h>

#include "base/wire.h"
#include "proc.h"

const char *program_name(struct program *p) {
        char path[64], name[LESSOR_NAME_SIZE];
        if (p->asked)
                return p->name;
        p->asked = true;
        snprintf(path, sizeof(path), "/proc/%d/comm", (int)p->pid);
        if (proc_read(path, name, sizeof(name)) <= 0)
                return p->name; /* hidepid, or just gone */
        name[strcspn(name, "\n")] = '\0';
        wire_string(p->name, sizeof(p->name), name);
        return p->name;
}
