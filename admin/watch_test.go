package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/node"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// underWay enters a delivery for a mailbox of health and sends its dot.
func underWay(t *testing.T, n *admintest.Node) *node.Ticket {
	t.Helper()
	d := n.Gate.Address("anna@health.example")
	ticket, err := n.Gate.Enter(&d, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ticket.Dot(t.Context()); err != nil {
		t.Fatal(err)
	}
	return ticket
}

func withAnna(t *testing.T, n *admintest.Node) *admin.Client {
	t.Helper()
	addHealth(t, n)
	importList[admin.Imported](t, n, 200, "", listHeader+"anna@health.example,"+directoryID(1)+",health,user,,,,,,,\n")
	armed(t, n, "health")
	c, err := admin.NewClient(n.URL, admintest.Anna, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An operation that waits for a dot says so to those who watch, and goes on when it has
// its answer, whoever watches.
func TestWatch(t *testing.T) {
	n := admintest.Start(t, nil)
	c := withAnna(t, n)
	ticket := underWay(t, n)
	op, err := c.Start(t.Context(), operation.Cutover, "health", "1.1", "test")
	if err != nil {
		t.Fatal(err)
	}
	if !op.Running || op.Closed == nil || op.Ended {
		t.Errorf("started: %+v", op)
	}
	var once sync.Once
	var steps []string
	last, err := c.Watch(t.Context(), op.ID, func(op admin.Operation) {
		if len(steps) == 0 || steps[len(steps)-1] != op.Step {
			steps = append(steps, op.Step)
		}
		if strings.Contains(op.Waiting, "final dots") {
			once.Do(func() {
				a, err := c.Agency(t.Context(), "health")
				if err != nil || a.Phase != "to-target" || a.Open || a.UnderWay.Dotted != 1 {
					t.Errorf("while it waits: %+v, %v", a, err)
				}
				if r, err := c.Route(t.Context(), "address", "anna@health.example"); err != nil || r.Deliver || r.Reason != "agency is closed" {
					t.Errorf("while it waits: %+v, %v", r, err)
				}
				_, err = c.Start(t.Context(), operation.Rollback, "health", a.Epoch, "test")
				if p, ok := errors.AsType[*admin.Problem](err); !ok || p.Status != 409 {
					t.Errorf("another operation: %v", err)
				}
				ticket.End()
			})
		}
	})
	if err != nil || last.Step != "done" || last.Running || last.ClosedFor <= 0 {
		t.Errorf("%+v, %v", last, err)
	}
	if len(steps) < 2 || steps[0] != "drain" {
		t.Errorf("steps %v", steps)
	}
	// Afterwards the stream has one event, and ends.
	if again, err := c.Watch(t.Context(), op.ID, func(admin.Operation) {}); err != nil || again.ID != op.ID {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := c.Watch(t.Context(), "nothing", func(admin.Operation) {}); err == nil {
		t.Error("an operation that isn't there can be watched")
	}
}

// A node that stops waits for its operations; when its time is over those that aren't
// committed are aborted, and the agency is open again where it was.
func TestShutdown(t *testing.T) {
	n := admintest.Start(t, nil)
	c := withAnna(t, n)
	ticket := underWay(t, n)
	defer ticket.End()
	op, err := c.Start(t.Context(), operation.Cutover, "health", "1.1", "test")
	if err != nil {
		t.Fatal(err)
	}
	watched := make(chan admin.Operation, 1)
	go func() {
		last, _ := c.Watch(context.Background(), op.ID, func(admin.Operation) {})
		watched <- last
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- n.Server.Shutdown(ctx) }()
	if err := <-stopped; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	<-watched
	a, _ := n.Replica.State().Agency("health")
	if a.Phase != routing.PhaseSource || !a.Open() || a.Epoch != (routing.Epoch{Term: 1, Number: 3}) {
		t.Errorf("after the stop: %+v", a)
	}
	if _, err := c.Agencies(t.Context()); !errors.Is(err, admin.ErrUnreachable) {
		t.Errorf("a stopped node answers: %v", err)
	}
}

// What is not this API is told from it, and the token goes nowhere else.
func TestClientAgainstOthers(t *testing.T) {
	var tokens []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens = append(tokens, r.Header.Get("Authorization"))
	}))
	defer other.Close()
	for name, answer := range map[string]http.HandlerFunc{
		"HTML":        func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"HTML 404":    func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", 404) },
		"redirection": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) },
		"cut":         func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"other problem": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(400)
			fmt.Fprint(w, "{")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(answer)
			defer s.Close()
			c, err := admin.NewClient(s.URL, "secret", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Agencies(t.Context()); !errors.Is(err, admin.ErrUnreachable) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v", err)
			}
		})
	}
	if len(tokens) > 0 {
		t.Errorf("the token went to another host: %v", tokens)
	}
	for _, bad := range []string{"", "127.0.0.1:8025", "ftp://x", "http://", "http://user:secret@x", "http://x?token=secret"} {
		if _, err := admin.NewClient(bad, "t", nil); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
