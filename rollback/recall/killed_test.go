package recall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailcutover/internal/durable"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/watermark"
	"mailcutover/routing"
	"mailcutover/test/peers"
)

// errand is what a process has to do that is killed.
type errand struct {
	From, To, Dir string
	Dies          int64         // once its journals have got so many bytes; 0: it doesn't
	DiesAfter     time.Duration // of its start; 0: it doesn't
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
	var disk durable.Disk = durable.OS{}
	if e.DiesAfter > 0 {
		time.AfterFunc(e.DiesAfter, die)
	}
	if e.Dies > 0 {
		disk = &lethal{Disk: disk, left: e.Dies}
	}
	journals, err := recall.OpenJournalsOn(disk, e.Dir)
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

// lethal is a disk whose files kill the process some milliseconds after they got so many bytes. What is
// written from then on isn't, so that however late the kill comes the process gets no further.
type lethal struct {
	durable.Disk
	mu   sync.Mutex
	left int64
}

func (l *lethal) Create(path string) (durable.File, error) {
	f, err := l.Disk.Create(path)
	return &lethalFile{f, l}, err
}

func (l *lethal) writes(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left <= 0 {
		select {}
	}
	if l.left -= int64(n); l.left <= 0 {
		time.AfterFunc(rand.N(20*time.Millisecond), die)
	}
}

// die kills the process.
func die() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }

type lethalFile struct {
	durable.File
	l *lethal
}

func (f *lethalFile) Write(p []byte) (int, error) {
	f.l.writes(len(p))
	return f.File.Write(p)
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
	const perMessage = 300 // bytes of the journal, at least: intent, appended, back
	share := int64(brought * perMessage / (kills + 1))
	for n := range kills {
		e.Dies, e.DiesAfter = share, 0
		if n%4 == 3 {
			e.Dies, e.DiesAfter = 0, 300*time.Millisecond
		}
		err := w.errand(&e)
		exit, died := errors.AsType[*exec.ExitError](err)
		died = died && exit.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		switch {
		case err != nil && !died:
			w.t.Fatalf("process %d: %v", n, err)
		case !died && n%4 != 3:
			w.t.Errorf("process %d came to its end, and should have been killed", n)
		}
		// What it had sent is worked off: how long that takes on this machine is not what is tried here.
		peers.WaitFor(w.t, time.Minute, "end of its sessions", func() bool { return !strings.Contains(w.source.Doveadm(w.t, "who"), "imap") })
	}
	e.Dies, e.DiesAfter = 0, 0
	if err := w.errand(&e); err != nil {
		w.t.Fatal(err)
	}
}

// errand runs the process.
func (w *world) errand(e *errand) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	path := filepath.Join(w.dir, "errand")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(w.t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "RECALL_ERRAND="+path)
	cmd.Stderr = &testWriter{w.t}
	return cmd.Run()
}
