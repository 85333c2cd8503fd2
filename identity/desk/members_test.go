package desk

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/model"
	"mailcutover/identity/watch"
	"mailcutover/routing"
)

// view is what a watch makes of a directory.
func view(t *testing.T, dir objects) *watch.View {
	t.Helper()
	m, err := model.New(model.Options{Rules: []model.Rule{{Agency: "health", Base: "ou=health,dc=x"}}})
	if err != nil {
		t.Fatal(err)
	}
	var source *watch.View
	read := make(chan struct{})
	w, err := watch.New(watch.Options{Source: dir, Model: m, Read: func(_ context.Context, s, _ *watch.View) { source = s; close(read) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = w.Run(ctx) }()
	<-read
	cancel()
	<-ended
	return source
}

// Who comes and goes is noted with mailbox and moment; the first reading changes nothing, and
// the oldest notes go.
func TestMemberChanges(t *testing.T) {
	shared := func(members ...string) objects {
		o := object(1)
		o.Kind, o.Members = directory.KindShared, members
		return objects{o, object(2)}
	}
	s := table(t, 2, false)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	enter := func(at time.Time, members ...string) []string {
		t.Helper()
		docs, changes := membership(view(t, shared(members...)), s, "health", at)
		pos := s.Position()
		pos.Revision++
		for i := range docs {
			docs[i].Revision = pos.Revision
			if len(docs[i].Text) > 64<<10 {
				t.Fatalf("document %s has %d bytes", docs[i].Key, len(docs[i].Text))
			}
		}
		next, err := s.Apply(routing.Update{Position: pos, Documents: docs})
		if err != nil {
			t.Fatal(err)
		}
		s = next
		return changes
	}
	if c := enter(at, "cn=a", "cn=b"); len(c) != 0 {
		t.Errorf("the first reading: %q", c)
	}
	if c := enter(at.Add(time.Hour), "cn=b", "cn=c\twith\na line", "cn=b"); len(c) != 2 || c[0] != "p1@health.example: cn=c with a line came" || c[1] != "p1@health.example: cn=a went" {
		t.Errorf("%q", c)
	}
	if c := enter(at.Add(2 * time.Hour)); len(c) != 2 {
		t.Errorf("all have gone: %q", c)
	}
	if m := Members(s, "health"); len(m) != 1 || m[0].Address != "p1@health.example" || len(m[0].Members) != 0 || m[0].Mailbox != id(1) {
		t.Errorf("%+v", m)
	}
	if m := Members(s, "heal"); len(m) != 0 {
		t.Errorf("of another agency: %+v", m)
	}
	all := MemberChanges(s, "", time.Time{})
	if len(all) != 4 || !all[0].Came || all[0].Member != "cn=c with a line" || all[0].Agency != "health" || !all[0].At.Equal(at.Add(time.Hour)) || all[3].Came {
		t.Errorf("%+v", all)
	}
	if c := MemberChanges(s, "health", at.Add(90*time.Minute)); len(c) != 2 {
		t.Errorf("since: %+v", c)
	}
	if c := MemberChanges(s, "heal", time.Time{}); len(c) != 0 {
		t.Errorf("of another agency: %+v", c)
	}
	for n := range 700 { // more than fits
		enter(at.Add(time.Duration(3+n)*time.Hour), fmt.Sprintf("cn=%d-%s", n, strings.Repeat("x", 60)))
	}
	all = MemberChanges(s, "health", time.Time{})
	if last := all[len(all)-1]; len(all) < 200 || len(all) > 1300 || !all[0].At.After(at.Add(3*time.Hour)) || !last.At.Equal(at.Add(702*time.Hour)) {
		t.Errorf("%d changes are kept, from %s to %s", len(all), all[0].At, last.At)
	}
}
