// Package admintest starts a node's table, replica, gate, runner and API in the test's
// process, without the mail side: for the tests of the API, and of the commands that
// speak to it. It is used by tests only; whatever doesn't start fails the test.
package admintest

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/audit"
	"mailcutover/internal/alarm"
	"mailcutover/internal/durable"
	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/node"
	"mailcutover/proxy/transfer"
	"mailcutover/rollback/control"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/routing/localtable"
	"mailcutover/routing/replica"
	"mailcutover/spool"
	"mailcutover/spool/queue"
)

// Secrets of the tokens that a Node knows: Anna has two, as operator, planner, releaser and
// admin; Ben is operator, planner and approver, Carla is approver.
const (
	Anna   = "anna-secret"
	Anna2  = "anna-second-secret"
	Ben    = "ben-secret"
	Carla  = "carla-secret"
	Source = "exchange" // platforms of a Node
	Target = "ox"
	Name   = "mx.example.org" // whose spool it is
)

// Node is a running node.
type Node struct {
	URL     string
	Table   *localtable.Table
	Replica *replica.Replica
	Gate    *node.Gate
	Alarms  *alarm.Set
	Server  *admin.Server
	Log     *Log

	Sessions *Sessions

	Spool  *spool.Store // what comes into it stays: no platform can be reached
	Queue  *queue.Queue
	Ledger *ledger.Ledger
	Copies *retained.Store
	Audit  *audit.Log
}

// Log keeps what is logged.
type Log struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	return len(b), nil
}

// String returns all that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// Start starts a node. change, if not nil, may change the options of its API.
func Start(t testing.TB, change func(*admin.Options)) *Node {
	t.Helper()
	n := &Node{Log: &Log{}, Sessions: new(Sessions)}
	logger := slog.New(slog.NewJSONHandler(n.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	n.Table, err = localtable.Open(filepath.Join(dir, "table.db"), localtable.Options{})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	pos, err := n.Table.Init(ctx)
	must(err)
	n.Replica, err = replica.Open(replica.Options{
		Table: n.Table, Interval: 100 * time.Millisecond, Logger: logger,
		OnUpdate: func(old, now *routing.State) { n.Gate.Update(old, now) },
	})
	must(err)
	n.Gate = node.NewGate(n.Replica, node.Lease{Settled: time.Minute, Armed: 10 * time.Second}, "+")
	var running sync.WaitGroup
	running.Go(func() { _ = n.Replica.Run(ctx) })
	journal, err := durable.Open(nil, filepath.Join(dir, "journal"))
	must(err)
	n.Alarms = alarm.NewSet(logger)
	shared := &alone{Table: n.Table, node: n}
	runner := operation.New(operation.Options{
		Node: Name, Instance: "test", Table: shared, Replica: n.Replica, Folder: journal, Alarms: n.Alarms, Logger: logger,
	})
	n.openSpool(t, ctx, &running, dir, logger)
	n.Audit, err = audit.Open(audit.Options{Dir: filepath.Join(dir, "audit"), Node: Name})
	must(err)
	answers, err := durable.Open(nil, filepath.Join(dir, "answers"))
	must(err)
	keeper, err := node.OpenKeeper(node.KeeperOptions{
		Table: shared, Replica: n.Replica, Node: Name, Dir: filepath.Join(dir, "node"), Logger: logger,
		Lease: node.Lease{Settled: time.Minute, Armed: 10 * time.Second},
	})
	must(err)
	keeper.Attach(n.Gate) // it renews nothing: only its locks are asked for
	t.Cleanup(func() { must(keeper.Close()) })
	o := admin.Options{
		LocalLocks: keeper, Sessions: n.Sessions,
		Spool: n.Spool, Queue: n.Queue, Ledger: n.Ledger, Retained: n.Copies, SpoolDirectory: filepath.Join(dir, "spool"),
		AdoptSpool: func(_ context.Context, dir, from string) (admin.Adoption, error) {
			id, err := spool.Adopt(nil, dir, from, Name)
			return admin.Adoption{Directory: dir, ID: id.ID, From: from, Began: time.Now()}, err
		},
		Adoptions: func() []admin.Adoption { return nil },
		Troubles:  func() []string { return nil },
		Table:     shared, Replica: n.Replica, Gate: n.Gate, Alarms: n.Alarms,
		Runner: runner, Control: control.New(control.Options{Table: shared, Replica: n.Replica, Logger: logger}),
		Audit: n.Audit, Answers: answers, Node: Name, Limit: func() time.Duration { return time.Second },
		Approvals: func() int { return 1 }, ApprovalLife: func() time.Duration { return time.Hour },
		Platforms: func() []admin.Platform {
			return []admin.Platform{{ID: Source, Ready: true}, {ID: Target, Ready: true}}
		},
		Tokens: func() []admin.Token {
			return []admin.Token{
				{Name: "anna-laptop", Person: "Anna Berg", SHA256: sha256.Sum256([]byte(Anna)), Roles: []admin.Role{admin.RolePlanner, admin.RoleOperator, admin.RoleReleaser, admin.RoleAdmin}},
				{Name: "anna-phone", Person: "Anna Berg", SHA256: sha256.Sum256([]byte(Anna2)), Roles: []admin.Role{admin.RolePlanner, admin.RoleOperator}},
				{Name: "ben-laptop", Person: "Ben Roth", SHA256: sha256.Sum256([]byte(Ben)), Roles: []admin.Role{admin.RolePlanner, admin.RoleOperator, admin.RoleApprover}},
				{Name: "carla-laptop", Person: "Carla Diaz", SHA256: sha256.Sum256([]byte(Carla)), Roles: []admin.Role{admin.RoleApprover}},
			}
		},
		Config: func(changed bool) string {
			if changed {
				return "node: mx.example.org\n"
			}
			return "node: mx.example.org\napproval: none\n"
		},
		Reload: func(context.Context) (admin.Reloaded, error) {
			return admin.Reloaded{Changed: []string{"log.level"}}, nil
		},
		Metrics:    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1\n") }),
		Postmaster: func() routing.Address { return "postmaster@health.example" },
		Answer:     transfer.New(transfer.Options{}).Answer,
		Separator:  "+", Approval: "none", Imports: true, Version: admin.Version{Version: "test", Go: "go"}, Logger: logger,
	}
	if change != nil {
		change(&o)
	}
	n.Server = admin.New(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	n.URL = "http://" + l.Addr().String()
	served := make(chan error, 1)
	running.Go(func() { served <- n.Server.Serve(l) })
	t.Cleanup(func() {
		end, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := n.Server.Shutdown(end); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
		if err := errors.Join(n.Spool.Close(), n.Copies.Close(), n.Ledger.Close(), n.Audit.Close()); err != nil {
			t.Error(err)
		}
		if err := n.Table.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	wait, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	must(n.Replica.Wait(wait, pos))
	must(runner.Recover(wait))
	return n
}
