package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

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

// When the stream breaks, the node is asked what became of the operation; if it is gone,
// nothing is claimed.
func TestWatchOfANodeThatStops(t *testing.T) {
	event := `{"id":"x","kind":"cutover","agency":"health","step":"drain","running":true}`
	for name, c := range map[string]struct {
		now      string // what the node answers afterwards; empty: nothing
		step     string
		hint     string
		wantDone bool
	}{
		"goes on": {now: event, hint: "goes on at the node"},
		"aborted": {now: `{"id":"x","kind":"cutover","agency":"health","step":"aborted","ended":true,"error":"the node is stopping"}`, step: "aborted", wantDone: true},
		"gone":    {hint: "can't be asked any more"},
	} {
		t.Run(name, func(t *testing.T) {
			node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch {
				case strings.HasSuffix(r.URL.Path, "/events"):
					fmt.Fprintf(w, "event: operation\ndata: %s\n\n", event)
				case c.now == "":
					panic(http.ErrAbortHandler)
				default:
					_, _ = io.WriteString(w, c.now)
				}
			}))
			defer node.Close()
			client, err := admin.NewClient(node.URL, "token", nil)
			if err != nil {
				t.Fatal(err)
			}
			cmd := new(cobra.Command)
			cmd.SetContext(t.Context())
			cmd.SetErr(io.Discard)
			op, err := new(connection).watch(cmd, client, "x")
			var h *hintError
			if c.wantDone {
				if err != nil || op.Step != c.step {
					t.Errorf("%+v, %v", op, err)
				}
			} else if !errors.As(err, &h) || !strings.Contains(h.hint, c.hint) {
				t.Errorf("%+v, %v", op, err)
			}
		})
	}
}
