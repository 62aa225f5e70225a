/* SPDX-License-Identifier: MIT */
#include "base/area.h"
#include "support/check.h"

static uint32_t take(struct area *a, uint32_t length, uint32_t *ret_end) {
        uint32_t offset = UINT32_MAX;
        return area_take(a, length, &offset, ret_end) ? offset : UINT32_MAX;
}

TEST(area, pieces_follow_each_other_and_an_empty_area_begins_anew) {
        struct area a = {.size = 64};
        uint32_t ends[3];
        check_eq(take(&a, 5, &ends[0]), 0);
        check_eq(take(&a, 8, &ends[1]), 8);
        check_eq(take(&a, 0, &ends[2]), 16);
        for (unsigned i = 0; i < 3; i++)
                area_give(&a, ends[i]);
        check_eq(take(&a, 64, &ends[0]), 0);
        check_eq(take(&a, 1, &ends[1]), UINT32_MAX);
        check_eq(take(&a, 65, &ends[1]), UINT32_MAX);
}

TEST(area, what_does_not_fit_at_the_end_goes_to_the_beginning_when_there_is_room) {
        struct area a = {.size = 64};
        uint32_t ends[4];
        check_eq(take(&a, 24, &ends[0]), 0);
        check_eq(take(&a, 24, &ends[1]), 24);
        check_eq(take(&a, 24, &ends[2]), UINT32_MAX);
        area_give(&a, ends[0]);
        check_eq(take(&a, 24, &ends[2]), UINT32_MAX); /* it would look empty */
        check_eq(take(&a, 16, &ends[2]), 48);
        check_eq(take(&a, 16, &ends[3]), 0);
        check_eq(take(&a, 8, &ends[0]), UINT32_MAX);
        area_give(&a, ends[1]);
        check_eq(take(&a, 24, &ends[0]), 16);
}

/* Random lengths, given back in order at random times: no two pieces share a byte, and none reaches beyond the area. */
TEST(area, pieces_never_overlap) {
        struct area a = {.size = 512};
        struct {
                uint32_t offset, length, end;
        } pieces[64];
        unsigned first = 0, n = 0, wrapped = 0;
        uint32_t random = 1;
        for (unsigned round = 0; round < 200000; round++) {
                uint32_t length, offset, end;
                random ^= random << 13, random ^= random >> 17, random ^= random << 5;
                length = random % (random % 16 ? 60 : 512);
                if ((random >> 20) % 2 && n > 0) {
                        area_give(&a, pieces[first].end);
                        first = (first + 1) % 64;
                        n--;
                } else if (n < 64 && area_take(&a, length, &offset, &end)) {
                        check(offset % AREA_ALIGN == 0 && offset <= a.size && length <= a.size - offset);
                        for (unsigned i = 0; i < n; i++) {
                                unsigned p = (first + i) % 64;
                                check(length == 0 || pieces[p].length == 0 || offset + length <= pieces[p].offset ||
                                      pieces[p].offset + pieces[p].length <= offset);
                        }
                        wrapped += n > 0 && offset == 0;
                        pieces[(first + n) % 64].offset = offset;
                        pieces[(first + n) % 64].length = length;
                        pieces[(first + n) % 64].end = end;
                        n++;
                } else {
                        check(n > 0); /* an empty one has room for anything */
                }
        }
        check(wrapped > 1000);
}
