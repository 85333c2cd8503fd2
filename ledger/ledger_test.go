package ledger

import (
	"context"
	"slices"
	"testing"
	"time"
)

func collect(t *testing.T, l *Ledger, q Query) []Record {
	t.Helper()
	var all []Record
	for r, err := range l.Find(context.Background(), q) {
		if err != nil {
			t.Errorf("find %+v: %v", q, err)
			continue
		}
		all = append(all, r)
	}
	return all
}

func TestDeliveryIsFound(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir, Boot: "1"})
	if err != nil {
		t.Fatal(err)
	}
	i := newTraffic(1).intent()
	ticket, err := l.Intend(i)
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, l, Query{Transaction: i.Transaction}); len(got) != 1 || got[0].Answer(0).Result != ResultPending {
		t.Fatalf("%+v", got)
	}
	l.Outcome(ticket, Answer{ResultDelivered, 250, "2.0.0 OK"})
	for range 2 {
		for name, q := range map[string]Query{
			"transaction": {Transaction: i.Transaction},
			"message id":  {MessageID: i.MessageID},
			"from":        {From: i.From},
			"recipient":   {Recipient: string(i.Recipients[0].Address)},
			"agency":      {Agency: i.Recipients[0].Agency},
			"all":         {},
			"time":        {Since: i.Time, Until: i.Time.Add(time.Second)},
			"result":      {Result: ResultDelivered},
		} {
			got := collect(t, l, q)
			if len(got) != 1 {
				t.Fatalf("%s: %+v", name, got)
			}
			r := got[0]
			if r.Transaction != i.Transaction || !slices.Equal(r.Recipients, i.Recipients) || r.Digest != i.Digest || r.Answer(0) != (Answer{ResultDelivered, 250, "2.0.0 OK"}) {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = Open(Options{Dir: dir, Boot: "2"}); err != nil {
			t.Fatal(err)
		}
		l.indexOne()
		if since, unknown := l.Unknown(); unknown || len(l.InDoubt()) > 0 {
			t.Errorf("unknown since %v, %v", since, l.InDoubt())
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
