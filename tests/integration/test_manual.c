/* SPDX-License-Identifier: MIT */
/* The manual pages say what there is: lessor.yaml(5) has an entry, with a text, for every key the broker knows. */
#include "support/broker.h"
#include "support/check.h"
#include "support/process.h"
#include "support/sandbox.h"

TEST(manual, lessor_yaml_has_an_entry_for_every_key) {
        const char *const argv[] = {broker_path(), "--help-config", NULL};
        char *keys = NULL, *page, *line, *rest, entry[128];
        unsigned n = 0;

        check_eq(program_run(argv, &keys, 10000), 0);
        page = sandbox_read(LESSOR_BINARY_DIR "/deploy/lessor.yaml.5", NULL);
        for (line = strtok_r(keys, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
                if (strncmp(line, "key: ", 5) != 0)
                        continue;
                snprintf(entry, sizeof(entry), "\n.It Sy %s Pq ", line + 5);
                const char *at = strstr(page, entry);
                check_msg(at, "lessor.yaml(5) says nothing of `%s`", line + 5);
                const char *text = strchr(at + 1, '\n');
                check_msg(text && text[1] >= 'A' && text[1] <= 'Z', "lessor.yaml(5) explains nothing about `%s`",
                          line + 5);
                n++;
        }
        check_msg(n > 30, "only %u keys", n);
        free(keys);
        free(page);
}
