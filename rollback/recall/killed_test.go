package recall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
)

// errand is what a process has to do that is killed.
type errand struct {
	From, To, Dir string
	Jobs          []errandJob
}

type errandJob struct {
	Address      routing.Address
	Mailbox      routing.MailboxID
	Since, There *watermark.Mailbox
	Delivered    []mail.TransactionID
}

// TestMain runs the tests, or is the process that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("RECALL_ERRAND"); path != "" {
		if err := runErrand(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// atOnce is how many mailboxes are worked on at a time.
const atOnce = 16

func runErrand(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var e errand
	if err := json.Unmarshal(b, &e); err != nil {
		return err
	}
	journals, err := recall.OpenJournals(e.Dir)
	if err != nil {
		return err
	}
	var stores [2]*mailstore.IMAP
	for i, host := range []string{e.From, e.To} {
		stores[i], err = mailstore.New(mailstore.Options{Platform: "p", Hosts: []string{host}, Connections: atOnce, Installation: installation,
			Access: mailstore.Access{Mode: mailstore.ModeMaster, User: "admin", Password: "master"}})
		if err != nil {
			return err
		}
	}
	// Settle is longer than a Dovecot without a processor needs for what a killed process has sent it.
	engine, err := recall.New(recall.Options{From: stores[0], To: stores[1], Journals: journals, Settle: 2 * time.Second})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	errs := make([]error, len(e.Jobs))
	for i, j := range e.Jobs {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			_, errs[i] = engine.Mailbox(context.Background(), recall.Job{
				Row: routing.Row{Mailbox: j.Mailbox, Kind: routing.KindUser, Addresses: []routing.Address{j.Address}}, Since: j.Since, There: j.There,
				Direction: recall.Direction{From: "ox", To: "exchange", Side: mailstore.Target}, Delivered: slices.Values(j.Delivered),
			})
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// killed has a process recall all mailboxes that is killed so often, and then let through. It
// is killed when its journals have grown by its share of what there is to be written, so somewhere
// between an intent and what became of it; every fourth time soon after its start, while it compares.
func (w *world) killed(d *day, kills int) {
	w.t.Helper()
	e := errand{From: w.target.IMAP, To: w.source.IMAP, Dir: filepath.Join(w.dir, "recall")}
	brought := 0
	for i, row := range w.rows {
		e.Jobs = append(e.Jobs, errandJob{Address: row.Addresses[0], Mailbox: row.Mailbox, Since: w.watermarks[row.Mailbox], There: w.sourceMarks[row.Mailbox], Delivered: w.delivered[row.Mailbox]})
		brought += d.ours[i] + d.users[i]
	}
	b, err := json.Marshal(e)
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.dir, "errand")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
	const perMessage = 300 // bytes of the journal, at least: intent, appended, back
	share := int64(brought * perMessage / (kills + 1))
	for n := range kills {
		ctx, cancel := context.WithCancel(w.t.Context())
		stop := make(chan struct{})
		var watch sync.WaitGroup
		if n%4 == 3 {
			timer := time.AfterFunc(300*time.Millisecond, cancel)
			watch.Go(func() { <-stop; timer.Stop() })
		} else {
			watch.Go(func() { grown(stop, e.Dir, share, cancel) })
		}
		err := w.errand(ctx, path)
		close(stop)
		watch.Wait()
		was := ctx.Err() != nil
		cancel()
		switch {
		case err != nil && !was:
			w.t.Fatalf("process %d: %v", n, err)
		case err == nil && n%4 != 3:
			w.t.Errorf("process %d came to its end, and should have been killed", n)
		}
	}
	if err := w.errand(w.t.Context(), path); err != nil {
		w.t.Fatal(err)
	}
}

// errand runs the process, until ctx ends: then it is killed.
func (w *world) errand(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "RECALL_ERRAND="+path)
	cmd.Stderr = &testWriter{w.t}
	return cmd.Run()
}

// grown calls kill when the files in dir have grown by n bytes, unless stop is closed before.
func grown(stop <-chan struct{}, dir string, n int64, kill func()) {
	before := bytesIn(dir)
	for bytesIn(dir) < before+n {
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
	kill()
}

// bytesIn is how large the files in dir are together.
func bytesIn(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // one that isn't there, or goes, has none
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
