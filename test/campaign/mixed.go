package campaign

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"mailcutover/admin"
)

// mixable are the columns of a generated list that say whose mailbox is whose.
var mixable = []string{"address", "directory_id"}

// sealing are its columns by which a change is seen without the directory.
var sealing = []string{"list", "digest"}

// mix is a list of which one column no longer belongs to the others, as in a table that was sorted
// by one column: two of its rows have changed places, or all have moved on by one. Without its
// digests it is one that somebody made by hand. draw returns a number below n. ok is false where
// the list is too short to be mixed, or has other columns.
func mix(text string, draw func(n int) int) (mixed, how string, ok bool) {
	in := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	in.Comma = ';'
	table, err := in.ReadAll()
	if err != nil || len(table) < 3 {
		return "", "", false
	}
	name := mixable[draw(len(mixable))]
	at := slices.Index(table[0], name)
	if at < 0 {
		return "", "", false
	}
	rows := table[1:]
	if draw(2) == 0 {
		i := draw(len(rows))
		j := (i + 1 + draw(len(rows)-1)) % len(rows)
		rows[i][at], rows[j][at] = rows[j][at], rows[i][at]
		how = "two rows of " + name
	} else {
		last := rows[len(rows)-1][at]
		for i := len(rows) - 1; i > 0; i-- {
			rows[i][at] = rows[i-1][at]
		}
		rows[0][at] = last
		how = "all rows of " + name
	}
	if draw(2) == 0 {
		for _, column := range sealing {
			i := slices.Index(table[0], column)
			if i < 0 {
				return "", "", false
			}
			for r := range table {
				table[r] = slices.Delete(table[r], i, i+1)
			}
		}
		how += ", without digests"
	}
	var b strings.Builder
	out := csv.NewWriter(&b)
	out.Comma = ';'
	if err := out.WriteAll(table); err != nil {
		return "", "", false
	}
	return b.String(), how, true
}

// bringMixed has somebody propose a list whose columns are mixed up. It must be refused.
func (s *Storm) bringMixed(ctx context.Context, api *admin.Client, agency, text string) {
	mixed, how, ok := mix(text, s.draw)
	if !ok {
		s.fail(fmt.Errorf("a generated list of %s can't be mixed up: %q", agency, text))
		return
	}
	p, err := api.ImportList(ctx, admin.ListFile{Agency: agency, Name: "mixed.csv", Content: []byte(mixed)}, "campaign")
	if err == nil {
		s.fail(fmt.Errorf("P3: a list of %s with %s mixed up was taken as proposal %s:\n%s", agency, how, p.ID, mixed))
		return
	}
	if refused, is := errors.AsType[*admin.Problem](err); is && refused.Status == http.StatusBadRequest {
		s.tally.Add("people", "mixed-up lists refused", 1)
	}
}
