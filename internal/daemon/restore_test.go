package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/backup"
	"mailcutover/routing/table"
	"mailcutover/test/peers"
)

// watched notes each moment at which a node would send an agency's mail to a platform.
func (b *bench) watched(t *testing.T, platform routing.PlatformID) (ended func() bool) {
	t.Helper()
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	var seen bool
	watcher.Go(func() {
		for {
			if d := b.gate.Address("anna@health.example"); d.Deliver() && d.Platform == platform {
				seen = true
			}
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond): // a state stays in force for as long as a write to the disk takes
			}
		}
	})
	var once sync.Once
	end := func() { once.Do(func() { close(stop) }); watcher.Wait() }
	t.Cleanup(end)
	return func() bool { end(); return seen }
}

// acts carries out what a person does. For ten seconds after a change that the table lost, the
// node that made it doesn't vouch for anything, so that one looks whether it happened.
func (b *bench) acts(what string, do func(control.Act) error, happened func(routing.Agency) bool) {
	b.t.Helper()
	if err := do(control.Act{ID: what, Who: "tester", Reason: "test"}); err != nil && !errors.Is(err, table.ErrRegressed) {
		b.t.Fatalf("%s: %v", what, err)
	}
	b.until(what, func() bool { a, _ := b.replica.State().Agency("health"); return happened(a) })
}

// A backup, then a cutover, then Redis loses everything, and the backup is restored: the agency
// that moved is not opened where the backup has it, on no node and for no moment. People
// reconcile it to what the nodes have seen.
func TestRestoreOfAnOlderBackup(t *testing.T) {
	t.Parallel()
	redis := peers.StartRedis(t, peers.RedisOptions{})
	more := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true, timeout: 5s}}", redis.URL())
	one := newBenchWith(t, more)
	two := one.second(t, more)
	two.until("the second node's copy", func() bool { d := two.gate.Address("anna@health.example"); return d.Deliver() })
	one.send(one.a)
	var file bytes.Buffer
	made, err := one.api.Backup(t.Context(), &file, "before the cutover")
	if err != nil || len(made.Contents.Agencies) != 1 || made.Mailboxes != 1 || made.Header.Person != "tester" {
		t.Fatalf("%+v, %v", made, err)
	}
	// The file's digest stands in the audit log.
	var log strings.Builder
	if _, err := one.api.AuditExport(t.Context(), &log); err != nil || !strings.Contains(log.String(), made.Digest.String()) {
		t.Errorf("the audit log doesn't have the backup: %v", err)
	}
	one.arm()
	if op, err := one.operate(operation.Cutover); err != nil || op.Step != operation.StepDone {
		t.Fatalf("%+v, %v", op, err)
	}
	for _, n := range []*bench{one, two} {
		n.until("the cutover", func() bool { d := n.gate.Address("anna@health.example"); return d.Deliver() && d.Platform == "ox" })
	}
	wrong := []func() bool{one.watched(t, "exchange"), two.watched(t, "exchange")}
	sent := func() *bytes.Reader { return bytes.NewReader(file.Bytes()) }
	if _, err := one.api.ProposeRestore(t.Context(), sent(), "test", true, false); err == nil {
		t.Fatal("a table that isn't empty is filled")
	}
	redis.CLI(t, "FLUSHALL")
	dry, err := two.api.ProposeRestore(t.Context(), sent(), "test", false, true)
	if err != nil || !dry.Older || fmt.Sprint(dry.Newer) != "[health]" || dry.Done != "" || dry.Digest != made.Digest.String() || len(dry.Members) != 2 {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	var p *admin.Problem
	if _, err := two.api.ProposeRestore(t.Context(), sent(), "test", false, false); !errors.As(err, &p) || p.Status != 409 || !strings.Contains(p.Detail, "older than what this node has seen") {
		t.Fatalf("without saying that it is older: %v", err)
	}
	altered := bytes.Replace(file.Bytes(), []byte(`"phase":"source"`), []byte(`"phase":"target"`), 1)
	if _, err := two.api.ProposeRestore(t.Context(), bytes.NewReader(altered), "test", true, false); !errors.As(err, &p) || p.Status != 400 {
		t.Fatalf("an altered file: %v", err)
	}
	if r, err := two.api.ProposeRestore(t.Context(), sent(), "redis is lost", true, false); err != nil || r.Done == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, n := range []*bench{one, two} {
		n.until("the restored table, and health closed", func() bool {
			a, _ := n.replica.State().Agency("health")
			seen, lost := n.replica.State().Seen("health")
			return a.Locked && lost && seen.Platform() == "ox" && n.replica.State().NamesLost()
		})
	}
	one.until("both nodes back", func() bool {
		n, err := one.table.Nodes(t.Context())
		return err == nil && len(n.Members) == 2 && n.Leases["mx1.example"].Applied > 0 && n.Leases["mx2.example"].Applied > 0
	})
	// Unlocking alone doesn't open what the backup says.
	if _, err := one.control.Unlock(t.Context(), control.Act{ID: "early", Who: "tester", Reason: "test"}, []routing.AgencyID{"health"}); err == nil {
		t.Error("an agency that nodes have seen elsewhere is unlocked")
	}
	one.acts("reconcile", func(a control.Act) error {
		_, err := one.control.Reconcile(t.Context(), a, []routing.AgencyID{"health"})
		return err
	}, func(a routing.Agency) bool { return a.Locked && a.Platform() == "ox" })
	one.until("the end of the rejoin", func() bool {
		n, err := one.table.Nodes(t.Context())
		return err == nil && n.Rejoining == ""
	})
	one.acts("unlock", func(a control.Act) error {
		_, err := one.control.Unlock(t.Context(), a, []routing.AgencyID{"health"})
		return err
	}, func(a routing.Agency) bool { return a.Open() })
	for _, n := range []*bench{one, two} {
		n.until("open where it was", func() bool { d := n.gate.Address("anna@health.example"); return d.Deliver() && d.Platform == "ox" })
		n.send(n.b)
	}
	for i, was := range wrong {
		if was() {
			t.Errorf("node %d would have sent mail to the platform that the backup has", i+1)
		}
	}
}

// Redis and the disks of all nodes are lost: the backup is all there is. What it has is closed,
// and nobody is denied, until people have looked.
func TestRestoreWithNothingLeft(t *testing.T) {
	t.Parallel()
	redis := peers.StartRedis(t, peers.RedisOptions{})
	more := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true, timeout: 5s}}", redis.URL())
	one := newBenchWith(t, more)
	var file bytes.Buffer
	if _, err := one.api.Backup(t.Context(), &file, "nightly"); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Read(bytes.NewReader(file.Bytes())); err != nil {
		t.Fatal(err)
	}
	one.letGo()
	one.holding.Wait()
	redis.CLI(t, "FLUSHALL")
	fresh := &bench{t: t, path: filepath.Join(t.TempDir(), "mailcutover.yaml"), log: new(lines), a: one.a, b: one.b}
	fresh.write(one.a.Addr(), more)
	fresh.start()
	fresh.until("the new node's table", func() bool { return fresh.replica.State().Position().Incarnation != "" })
	if dry, err := fresh.api.ProposeRestore(t.Context(), bytes.NewReader(file.Bytes()), "test", false, true); err != nil || dry.Older {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	if r, err := fresh.api.ProposeRestore(t.Context(), bytes.NewReader(file.Bytes()), "all is lost", false, false); err != nil || r.Done == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	fresh.until("the restored table", func() bool { return fresh.replica.State().Len() == 1 })
	if a, ok := fresh.replica.State().Agency("health"); !ok || !a.Locked || a.Open() {
		t.Errorf("%+v", a)
	}
	for _, who := range []routing.Address{"anna@health.example", "nobody@health.example", "x@elsewhere.example"} {
		d := fresh.gate.Address(who)
		if d.Deliver() || strings.HasPrefix(fresh.transfer.Answer(&d), "5") {
			t.Errorf("%s: %+v: %s", who, d, fresh.transfer.Answer(&d))
		}
	}
	// A second restore, or a bootstrap, finds a table that isn't empty any more.
	var p *admin.Problem
	if _, err := fresh.api.ProposeRestore(t.Context(), bytes.NewReader(file.Bytes()), "again", true, false); !errors.As(err, &p) || p.Status != 409 {
		t.Errorf("again: %v", err)
	}
}
