package admin

import (
	"fmt"
	"time"

	"mailcutover/identity/check"
	"mailcutover/identity/list"
	"mailcutover/identity/register"
	"mailcutover/identity/report"
	"mailcutover/mailboxlist"
	"mailcutover/routing"
)

// listText says what is approved: warnings first.
func listText(state *routing.State, l *list.List, r *check.Result, remap *mailboxlist.Remap) []string {
	const samples = 10
	text := []string{fmt.Sprintf("LIST %s of agency %s: %d mailboxes", l.ID, l.Agency, len(l.Rows))}
	if l.Foreign {
		text = append(text, fmt.Sprintf("WARNING: it was not generated here, so its rows have no digests; it came as %q", l.Source))
	}
	if r.Warnings > 0 {
		text = append(text, fmt.Sprintf("WARNINGS: %d rows: %s", r.Warnings, report.Tally(r, check.Warning)))
		for _, one := range report.Rows(r, check.Warning, report.English, samples) {
			text = append(text, "  "+one)
		}
		if more := r.Warnings - samples; more > 0 {
			text = append(text, fmt.Sprintf("  and %d more", more))
		}
	}
	text = append(text, "", fmt.Sprintf("every row was compared with the directory as read at %s: %d right, %d with a warning, none wrong", r.At.UTC().Format(time.RFC3339), r.Right, r.Warnings))
	text = append(text, sinceEarlier(state, l)...)
	switch {
	case len(remap.Agencies) == 0:
		text = append(text, "activating it changes no route: the table has all of it")
	case remap.OnlyAdds():
		text = append(text, fmt.Sprintf("activating it adds %d mailboxes, and names to %d; nothing that is routed today changes", remap.Agencies[0].Added, remap.Agencies[0].Changed))
	default:
		text = append(text, "ACTIVATING IT CHANGES ROUTES: it closes the agencies for a moment, which have to be armed")
		text = append(text, remapText(remap)...)
	}
	text = append(text, "", "samples:")
	for _, i := range spread(len(l.Rows), 5) {
		row := &l.Rows[i]
		text = append(text, fmt.Sprintf("  row %d: %s is mailbox %s", i+1, row.Address, row.ID))
	}
	return append(text, "", fmt.Sprintf("who approves it types the number of mailboxes, %d, or the agency, %s", len(l.Rows), l.Agency))
}

// sinceEarlier says what is different from the agency's lists in force.
func sinceEarlier(state *routing.State, l *list.List) []string {
	earlier := &list.List{Agency: l.Agency}
	entries, _ := register.Lists(state, l.Agency)
	earlier.Rows = register.InForce(entries)
	lists := 0
	for i := range entries {
		if entries[i].Standing == register.Active {
			lists++
		}
	}
	if lists == 0 {
		return []string{"it is the agency's first list"}
	}
	counts := make(map[list.Change]int)
	var repaired, shown []string // addresses that change hands are shown first
	for _, d := range list.Diff(earlier, l) {
		if d.Change == list.Gone {
			continue // other lists name them
		}
		counts[d.Change]++
		switch one := fmt.Sprintf("  %s: %s", d.Change, d.Address); d.Change {
		case list.Added:
		case list.Repaired:
			repaired = append(repaired, one)
		default:
			shown = append(shown, one)
		}
	}
	shown = append(repaired, shown...)
	const samples = 10
	if more := len(shown) - samples; more > 0 {
		shown = append(shown[:samples], fmt.Sprintf("  and %d more", more))
	}
	text := fmt.Sprintf("compared with the agency's %d lists in force: %d mailboxes are new, %d have another address, %d addresses were another mailbox's", lists, counts[list.Added], counts[list.Readdressed], counts[list.Repaired])
	return append([]string{text}, shown...)
}

// spread returns n numbers below total, the first and the last among them.
func spread(total, n int) (out []int) {
	n = min(n, total)
	for i := range n {
		out = append(out, i*(total-1)/max(1, n-1))
	}
	return out
}
