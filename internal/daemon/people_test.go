package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"mailcutover/audit"
)

func TestNextHeads(t *testing.T) {
	head := func(chain string, n uint64) audit.Head {
		return audit.Head{Node: "mx1.example", Chain: chain, Number: n, Hash: audit.Hash{byte(n)}}
	}
	here := func(audit.Head) error { return nil }
	gone := func(audit.Head) error { return errors.New("record 7 is missing") }
	a5, a7, b1 := head("A", 5).String(), head("A", 7).String(), head("B", 1).String()
	for name, c := range map[string]struct {
		text, want, problem string
		next                audit.Head
		has                 func(audit.Head) error
	}{
		"first":             {"", a5, "", head("A", 5), here},
		"next":              {a5, a7, "", head("A", 7), here},
		"cut":               {a7, a7 + "\n" + a5, "record 7 is missing", head("A", 5), gone},
		"another folder":    {a7, a7 + "\n" + b1, "it is chain B now", head("B", 1), here},
		"goes on after it":  {a7 + "\n" + b1, a7 + "\n" + head("B", 2).String(), "", head("B", 2), here},
		"somebody wrote it": {"nonsense", "nonsense\n" + b1, "not a head", head("B", 1), here},
	} {
		got, problem := nextHeads(c.text, c.next, c.has)
		if got != c.want || (problem == "") != (c.problem == "") || !strings.Contains(problem, c.problem) {
			t.Errorf("%s: %q, %q", name, got, problem)
		}
	}
	long := strings.Repeat(a5+"\n", 3*keptHeads)
	if got, _ := nextHeads(long, b1Head(), here); len(strings.Fields(got)) != keptHeads {
		t.Errorf("%d heads are kept", len(strings.Fields(got)))
	}
}

func b1Head() audit.Head { return audit.Head{Node: "mx1.example", Chain: "B", Number: 1} }

// The audit log outlives a restart, and its head is in the table, the last one too.
func TestAuditOfANode(t *testing.T) {
	b := newBench(t)
	inTable := func() string {
		d, _ := b.replica.State().Document(headsKey("mx1.example"))
		return d.Text
	}
	b.until("the head in the table", func() bool {
		h, err := b.api.AuditHead(t.Context())
		return err == nil && h.Number >= 2 && inTable() == h.Head
	})
	before, err := b.api.AuditHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.api.Arm(t.Context(), "health", "1.1", "soon"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	b.start()
	var out strings.Builder
	head, err := b.api.AuditExport(t.Context(), &out)
	if err != nil || head.Number != before.Number+1 {
		t.Fatalf("%v, %v; before it was %s", head, err, before.Head)
	}
	old, err := audit.ParseHead(before.Head)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := audit.Verify(strings.NewReader(out.String()), old, head); err != nil || r.Heads != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	// The node copied it when it stopped, or does now if that took over a second.
	b.until("the last head in the table", func() bool { return inTable() == head.String() })
}

// An emergency is an alarm until somebody has confirmed it.
func TestEmergencyAlarm(t *testing.T) {
	b := newBench(t)
	done, err := b.api.Lock(t.Context(), "health", "", "mixed up")
	if err != nil || !done.Complete {
		t.Fatalf("%+v, %v", done, err)
	}
	key := "emergency/" + done.Emergency
	alarmed := func() bool {
		list, err := b.api.Alarms(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			if a.Key == key {
				return strings.Contains(a.Text, "health")
			}
		}
		return false
	}
	b.until("the alarm", alarmed)
	list, err := b.api.Emergencies(t.Context())
	if err != nil || len(list) != 1 || !slices.Equal(list[0].Agencies, []string{"health"}) {
		t.Fatalf("%+v, %v", list, err)
	}
	if _, err := b.api.ConfirmEmergency(t.Context(), done.Emergency, "looked"); err != nil {
		t.Fatal(err)
	}
	b.until("the alarm's end", func() bool { return !alarmed() })
}
