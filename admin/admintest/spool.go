package admintest

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/queue"
)

// openSpool opens the spool, the ledger and the copies of a node, and lets a queue work on them.
func (n *Node) openSpool(t testing.TB, ctx context.Context, running *sync.WaitGroup, dir string, logger *slog.Logger) {
	t.Helper()
	var err error
	if n.Copies, err = retained.Open(retained.Options{Dir: filepath.Join(dir, "retained"), Logger: logger}); err != nil {
		t.Fatal(err)
	}
	if n.Ledger, err = ledger.Open(ledger.Options{Dir: filepath.Join(dir, "ledger"), Boot: "this", Logger: logger}); err != nil {
		t.Fatal(err)
	}
	if n.Spool, err = spool.Open(spool.Options{Dir: filepath.Join(dir, "spool"), Node: Name, Alarms: n.Alarms, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	n.Queue, err = queue.New(queue.Options{
		Store: queue.FromSpool(n.Spool), Router: n.Gate, Sender: nowhere{}, Alarms: n.Alarms, Ledger: n.Ledger, Logger: logger,
		Retry: queue.Retry{Down: time.Hour, DownMax: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { _ = n.Queue.Run(ctx) })
}

// nowhere is a Sender whose platforms can't be reached.
type nowhere struct{}

func (nowhere) Send(_ context.Context, d *queue.Delivery) []queue.Result {
	results := make([]queue.Result, len(d.Recipients))
	for i := range results {
		results[i] = queue.Result{Status: queue.Unavailable, Err: errors.New("connection refused")}
	}
	return results
}

func (nowhere) Connections(routing.PlatformID) int { return 2 }

// Put puts a message into the spool of the node as if it had just come, and returns its
// transaction.
func (n *Node) Put(t testing.TB, from string, rcpts ...spool.Recipient) mail.TransactionID {
	t.Helper()
	return PutInto(t, n.Spool, n.Queue.Added, from, rcpts...)
}

// PutInto puts a message into a spool, and tells added, unless nil.
func PutInto(t testing.TB, s *spool.Store, added func(mail.TransactionID), from string, rcpts ...spool.Recipient) mail.TransactionID {
	t.Helper()
	path, err := mail.ParsePath(from, false)
	if err != nil {
		t.Fatal(err)
	}
	id := mail.NewTransactionID()
	in, err := s.Begin(spool.Envelope{Transaction: id, Time: time.Now(), From: path, MessageID: "<" + string(id) + "@out.example>"})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Discard()
	if _, err := in.Write([]byte("Subject: never shown\r\n\r\ncontent never shown\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(t.Context(), rcpts); err != nil {
		t.Fatal(err)
	}
	if added != nil {
		added(id)
	}
	return id
}
