package main

import (
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/rollback/operation"
)

func TestConfirm(t *testing.T) {
	a := admin.Agency{ID: "health", Source: "exchange", Target: "ox", Platform: "ox", Mailboxes: 3, Children: []string{"health-pilot"}}
	for _, c := range []struct {
		typed string
		ok    bool
	}{
		{"health\n", true}, {" health \r\n", true}, {"health", true},
		{"yes\n", false}, {"Health\n", false}, {"\n", false}, {"", false}, {"no\nhealth\n", false},
	} {
		var asked strings.Builder
		err := confirm(strings.NewReader(c.typed), &asked, operation.Rollback, a)
		if (err == nil) != c.ok {
			t.Errorf("typed %q: %v", c.typed, err)
		}
		if !strings.Contains(asked.String(), "3 mailboxes go from ox to exchange") || !strings.Contains(asked.String(), "health-pilot") {
			t.Errorf("asked %q", asked.String())
		}
	}
}

func TestProgress(t *testing.T) {
	closed := time.Now()
	events := []admin.Operation{
		{Kind: "cutover", Agency: "health", Step: "drain", Closed: &closed, ClosedFor: 0.01},
		{Kind: "cutover", Agency: "health", Step: "drain", Closed: &closed, ClosedFor: 1.01, Waiting: "2 dots awaited, 0 in doubt"},
		{Kind: "cutover", Agency: "health", Step: "drain", Closed: &closed, ClosedFor: 2.01, Waiting: "2 dots awaited, 0 in doubt"},
		{Kind: "cutover", Agency: "health", Step: "done", Closed: &closed, ClosedFor: 2.5, Ended: true},
	}
	for _, c := range []struct {
		live bool
		want string
	}{
		{false, "cutover health: drain\ncutover health: drain, waiting: 2 dots awaited, 0 in doubt\ncutover health: done\n"},
		{true, "\rcutover health: drain, closed for 10ms" +
			"\rcutover health: drain, waiting: 2 dots awaited, 0 in doubt, closed for 1s" +
			"\rcutover health: drain, waiting: 2 dots awaited, 0 in doubt, closed for 2s" +
			"\rcutover health: done, closed for 2.5s" + strings.Repeat(" ", 36) + "\n"},
	} {
		var out strings.Builder
		p := &progress{out: &out, live: c.live}
		for _, op := range events {
			p.show(op)
		}
		p.end()
		if out.String() != c.want {
			t.Errorf("live %t:\n%q, want\n%q", c.live, out.String(), c.want)
		}
	}
}

func TestQuoted(t *testing.T) {
	for in, want := range map[string]string{"": "''", "wave-3": "wave-3", "wave 3": "'wave 3'", "it's; rm": `'it'\''s; rm'`, "$x": "'$x'"} {
		if got := quoted(in); got != want {
			t.Errorf("%q is %s, want %s", in, got, want)
		}
	}
}

// What a node sends can't steer a terminal.
func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[2Jb\x07c\u202ed\r"); strings.ContainsAny(got, "\x1b\x07\r\u202e") {
		t.Errorf("%q", got)
	}
}
