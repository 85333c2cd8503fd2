package main

import (
	"testing"

	"mailcutover/admin"
)

// Where a message was found, what could not be looked at is told all the same.
func TestPlacesOn(t *testing.T) {
	for _, c := range []struct {
		name  string
		at    admin.LocatedAt
		rows  int
		where string // of the last row
		note  string
	}{
		{"found", admin.LocatedAt{Platform: "ox", Folders: 3, Places: []admin.LocatedPlace{{Where: "inbox", Ours: true}}}, 1, "inbox", "came by us"},
		{"found, not all looked at", admin.LocatedAt{Platform: "ox", Folders: 3, Skipped: 2, Cut: true, Places: []admin.LocatedPlace{{Where: "inbox", Ours: true}}}, 2,
			"elsewhere: not known", "2 folders could not be opened; not all messages could be compared"},
		{"nowhere", admin.LocatedAt{Platform: "ox", Folders: 3}, 1, "in none of 3 folders", ""},
		{"nowhere, not all looked at", admin.LocatedAt{Platform: "ox", Folders: 3, Skipped: 1}, 1, "in none of 3 folders", "1 folders could not be opened"},
		{"not to the end", admin.LocatedAt{Platform: "ox", Error: "timeout", Places: []admin.LocatedPlace{{Where: "trash"}}}, 2, "not known", "timeout"},
	} {
		rows := placesOn(&c.at)
		if len(rows) != c.rows || rows[len(rows)-1][1] != c.where || rows[len(rows)-1][3] != c.note {
			t.Errorf("%s: %q", c.name, rows)
		}
	}
}
