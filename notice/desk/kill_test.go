package desk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/internal/alarm"
	"mailcutover/notice"
	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

// childDir is set for the process that TestKill kills.
const childDir = "NOTICE_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(m)
}

// child changes the table, and its receiver takes the first two events only. It says what
// happened; the rest is for the process after it.
func child(dir string) {
	if err := changeAndTell(dir); err != nil {
		fmt.Println("E", err)
		os.Exit(1)
	}
	select {}
}

func changeAndTell(dir string) error {
	ctx := context.Background()
	tb, err := localtable.Open(filepath.Join(dir, "table.db"), localtable.Options{})
	if err != nil {
		return err
	}
	pos, err := tb.Init(ctx)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	rep, err := replica.Open(replica.Options{Table: tb, Logger: log})
	if err != nil {
		return err
	}
	go func() { _ = rep.Run(ctx) }()
	if _, err := tb.Renew(ctx, table.Renewal{Incarnation: pos.Incarnation, Member: routing.Member{Node: "mx1", Instance: "mx1-1", Protocol: table.Protocol}, Short: time.Hour, Long: 2 * time.Hour}); err != nil {
		return err
	}
	d, err := New(Options{Node: "mx1", Installation: "lab", Table: tb, Replica: rep, Alarms: alarm.NewSet(nil), Dir: dir, Logger: log, Pace: pace})
	if err != nil {
		return err
	}
	taken := 0
	d.Configure([]*Channel{{Name: "ops", Kind: "test", Filter: notice.Filter{Types: []string{"agency.*"}}, Most: 1, Timeout: time.Minute, Send: func(_ context.Context, events []notice.Event) error {
		if taken == 2 {
			fmt.Println("W")
			return errors.New("away")
		}
		taken++
		fmt.Println("T", events[0].ID, events[0].Type)
		return nil
	}}})
	go d.Run(ctx)
	for {
		if _, ok := d.box.Known(); ok {
			break
		}
		time.Sleep(time.Millisecond)
	}
	a, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		return err
	}
	for i := range 5 {
		if pos, err = tb.Position(ctx); err != nil {
			return err
		}
		if pos, err = tb.Change(ctx, table.Change{ID: fmt.Sprint("c", i), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{a}, Who: "Anna", What: "test", Reason: "r"}); err != nil {
			return err
		}
		a.Revision = pos.Revision
		if i%2 == 0 {
			a, err = a.Lock()
		} else {
			a, err = a.Unlock()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A process is killed between events and their sending: the next one tells the rest, in
// order, and what was told once more only under its own id.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() }).Stop() // it has got stuck
	told := make(map[string]notice.Type)
	var order []notice.Type
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var what, id, kind string
		_, _ = fmt.Sscan(lines.Text(), &what, &id, &kind)
		if what == "T" {
			told[id] = notice.Type(kind)
			order = append(order, notice.Type(kind))
			continue
		}
		if what != "W" {
			t.Errorf("the process says %q", lines.Text())
		}
		break
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed

	tb, err := localtable.Open(filepath.Join(dir, "table.db"), localtable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tb.Close()
	l, r := &lab{t: t, tb: tb}, new(receiver)
	l.member("mx1", time.Hour)
	l.desk("mx1", dir, alarm.NewSet(nil), 0, r.channel(notice.Filter{Types: []string{"agency.*"}}))
	a, _ := l.State().Agency("health")
	changes := int(a.Epoch.Number) // the first adds it, each other one locks or unlocks
	want := []notice.Type{notice.AgencyAdded}
	for i := 1; i < changes; i++ {
		want = append(want, [][]notice.Type{locked, unlocked}[(i-1)%2]...)
	}
	eventually(t, fmt.Sprintf("the rest of %d events", len(want)), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		all := slices.Clone(order)
		for i := range r.got {
			if told[r.got[i].ID] == "" {
				all = append(all, r.got[i].Type)
			}
		}
		return slices.Equal(all, want)
	})
	r.once(t)
}
