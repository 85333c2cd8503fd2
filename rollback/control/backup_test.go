package control

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"mailcutover/approval"
	canary "mailcutover/rollback/canary/desk"
	"mailcutover/routing"
	"mailcutover/routing/backup"
	"mailcutover/routing/localtable"
	"mailcutover/routing/table"
)

// What people had approved before a backup holds for nothing after it was restored: neither a
// proposal, nor that a canary may bring an agency back. What a releaser has to lift stays.
func TestRestoreLeavesOutWhatWasApproved(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.add("health")
	pos := b.follow()
	switched, err := canary.Switched(b.Replica.State(), "health", "op-1", "mx1.example", true)
	if err != nil {
		t.Fatal(err)
	}
	const stop = "plan/stop"
	if _, err := b.table.Change(t.Context(), table.Change{ID: "docs", Incarnation: pos.Incarnation, Term: pos.Term, Documents: []routing.Document{
		switched, {Key: approval.Prefix + "one", Text: "{}"}, {Key: stop, Text: "{}"},
	}}); err != nil {
		t.Fatal(err)
	}
	b.follow()
	var file bytes.Buffer
	if _, err := b.Backup(&file, backup.Header{Node: "mx1.example", Person: "anna"}); err != nil {
		t.Fatal(err)
	}
	made, err := backup.Read(&file)
	if err != nil || len(made.Contents.Documents) != 3 {
		t.Fatalf("%d documents, %v", len(made.Contents.Documents), err)
	}
	empty, err := localtable.Open(filepath.Join(t.TempDir(), "table.db"), localtable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { empty.Close() })
	other := New(Options{Table: empty, Replica: b.Replica, Logger: slog.New(slog.DiscardHandler)})
	if _, err := other.Restore(t.Context(), b.act(), made, false); err != nil {
		t.Fatal(err)
	}
	u, err := empty.Snapshot(t.Context())
	if err != nil || len(u.Agencies) != 1 || !u.Agencies[0].Locked {
		t.Fatalf("%+v, %v", u, err)
	}
	var keys []string
	for _, d := range u.Documents {
		keys = append(keys, d.Key)
	}
	if got := strings.Join(keys, " "); !strings.Contains(got, stop) || !strings.Contains(got, routing.NamesLost) || len(keys) != 2 {
		t.Errorf("documents after it: %s", got)
	}
}
