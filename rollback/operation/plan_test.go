package operation

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/canary"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

var update = flag.Bool("update", false, "write the golden files")

// probe says no for some platforms.
type probe map[string]error

func (p probe) Probe(_ context.Context, _ routing.AgencyID, platform routing.PlatformID, side Side) (string, error) {
	return "250 2.1.5 ok", p[string(platform)+" "+string(side)]
}

func (p probe) ProbeLogin(_ context.Context, platform routing.PlatformID) (string, error) {
	if err := p[string(platform)+" login"]; err != nil {
		return "", err
	}
	return "probe logged in", nil
}

// canaries are agencies that have one; what comes of it is theirs to say.
type canaries map[routing.AgencyID]func(context.Context, routing.PlatformID) canary.Result

func (c canaries) Canary(id routing.AgencyID) string {
	if c[id] == nil {
		return ""
	}
	return "a message to canary@" + string(id) + ".example"
}

func (c canaries) TakesBack(id routing.AgencyID) bool { return id == "firefighters" }

func (c canaries) Try(ctx context.Context, id routing.AgencyID, platform routing.PlatformID) canary.Result {
	r := c[id](ctx, platform)
	r.Agency, r.Ended = id, time.Now()
	return r
}

type checker []Check

func (c checker) Check(context.Context, *Plan) []Check { return c }

// changing is what differs from run to run.
var changing = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`(digest    )[0-9a-f]+`), "${1}DIGEST"},
	{regexp.MustCompile(`(made      )\S+, at revision \d+`), "${1}TIME, at revision N"},
	{regexp.MustCompile(`applied \d+`), "applied N"},
	{regexp.MustCompile(`revision \d+`), "revision N"},
	{regexp.MustCompile(`operation [0-9a-f-]{36}`), "operation ID"},
	{regexp.MustCompile(`before \d{4}-\S+`), "before TIME"},
	{regexp.MustCompile(`since \d{4}-\S+`), "since TIME"},
}

// Plans as people see them.
func TestPlans(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(o *Options)
		prepare func(c *cluster)
		request Request
		refused bool
	}{
		"cutover": {
			change: func(o *Options) {
				o.Hooks, o.Prober, o.Canaries = newStage(true), probe{}, canaries{"police": func(context.Context, routing.PlatformID) canary.Result { return canary.Result{OK: true} }}
				o.Checks = []Checker{checker{Passed("space", "3.1 GB free"), {Name: "list", Informs: true, Text: "approved by nobody"}}}
				o.Sessions = func(context.Context, routing.AgencyID) (int, []string) { return 12, []string{"c"} }
			},
			prepare: func(c *cluster) {
				c.lists()
				c.nodes[1].set(func(n *simNode) { n.counts = []table.Count{{Agency: "police", Held: 3, Waiting: 2}} })
				c.nodes[0].until("counts", func() bool {
					n, err := c.real.Nodes(context.Background())
					return err == nil && len(n.Leases["b"].Counts) == 1
				})
			},
			request: Request{Kind: Cutover, Agency: "police", Without: []string{"forward"}},
		},
		"rollback-with-children": {
			prepare: func(c *cluster) {
				for _, id := range []routing.AgencyID{"health-pilot", "health"} {
					if _, err := c.nodes[0].run(Cutover, id); err != nil {
						c.t.Fatal(err)
					}
				}
			},
			request: Request{Kind: Rollback, Agency: "health"},
		},
		"remap": {
			prepare: func(c *cluster) { c.lists() },
			request: Request{Kind: Remap},
		},
		"refused": {
			change: func(o *Options) {
				o.Prober = probe{"ox inside": errors.New("421 4.3.2 not today")}
				o.Limit = nil
			},
			prepare: func(c *cluster) {
				c.store(table.Change{Freezes: []routing.Freeze{{Agency: "police", Who: "ben", Reason: "holiday", Since: time.Unix(0, 0)}}})
				c.nodes[1].set(func(n *simNode) {
					n.doubts = []table.Doubt{{Agency: "police", Messages: 2, Until: time.Now().Add(24 * time.Hour)}}
				})
				c.nodes[0].table.unconfirmed(func() error { return errors.New("1 of 2 replicas") })
				c.nodes[0].until("doubts", func() bool {
					n, err := c.real.Nodes(context.Background())
					return err == nil && len(n.Leases["b"].Doubts) == 1
				})
			},
			request: Request{Kind: Cutover, Agency: "police"}, refused: true,
		},
		"emergency": {
			change: func(o *Options) {
				o.Prober = probe{"ox inside": errors.New("timeout"), "ox outside": errors.New("timeout")}
			},
			prepare: func(c *cluster) {
				if _, err := c.nodes[0].run(Cutover, "police"); err != nil {
					c.t.Fatal(err)
				}
				c.store(table.Change{Freezes: []routing.Freeze{{Who: "ben", Reason: "holiday", Since: time.Unix(0, 0)}}})
				c.nodes[1].goSilent()
				c.nodes[0].until("lease over", func() bool {
					n, err := c.real.Nodes(context.Background())
					return err == nil && n.Time.After(n.Leases["b"].ShortEnd)
				})
			},
			request: Request{Kind: Rollback, Agency: "police", Emergency: true, TargetDead: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t, openLocal(t), 2, func(o *Options) {
				if name == "emergency" {
					o.Leases.Short, o.Leases.Long = 3*time.Second, 4*time.Second // on a busy machine, too
				}
				o.Puts = func(id routing.AgencyID) bool { return name == "emergency" || name == "remap" && id == "police" }
				if name == "emergency" {
					o.Logins = logins(0)
				}
				if c.change != nil {
					c.change(o)
				}
			})
			c.prepare(cl)
			a := cl.nodes[0]
			req := c.request
			req.Who, req.Reason = "anna", "test"
			if req.Kind == Remap {
				req.Mappings = map[routing.AgencyID]routing.Digest{
					"health": cl.mapped("health", "anna@gov.example"),
					"police": cl.mapped("police", "bert@gov.example", "carl@gov.example"),
				}
			}
			before, err := cl.real.Position(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			p, err := a.Plan(t.Context(), req)
			if err != nil || p.Refused() != c.refused {
				t.Fatalf("%v, refused %v:\n%s", err, p.Refused(), p.Text())
			}
			if after, err := cl.real.Position(t.Context()); err != nil || after != before {
				t.Errorf("the plan changed the table: %v, %v", after, err)
			}
			got := p.Text()
			for _, r := range changing {
				got = r.re.ReplaceAllString(got, r.to)
			}
			file := filepath.Join("testdata", "plan-"+name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s:\n%s\nwant\n%s", file, got, want)
			}
			if b, err := json.Marshal(&p); err != nil || !strings.Contains(string(b), `"checks":[`) {
				t.Errorf("as JSON: %s, %v", b, err)
			}
		})
	}
}

// A run that was approved is what was approved, or nothing.
func TestRunOfAnApprovedPlan(t *testing.T) {
	t.Parallel()
	s := newStage(false)
	c := newCluster(t, openLocal(t), 2, func(o *Options) { o.Hooks, o.Prober = s, probe{} })
	a := c.nodes[0]
	req := Request{Kind: Cutover, Agency: "police", Who: "anna", Reason: "test"}
	plan := func() routing.Digest {
		p, err := a.Plan(t.Context(), req)
		if err != nil || p.Refused() {
			t.Fatalf("%v\n%s", err, p.Text())
		}
		return p.Digest()
	}
	approved := plan()
	if again := plan(); again != approved {
		t.Errorf("%s, and then %s", approved, again)
	}
	refuse := func(what string, want error, change func(*Request)) {
		t.Helper()
		one := req
		one.Plan = approved
		if change != nil {
			change(&one)
		}
		if op, err := a.Run(t.Context(), one); !errors.Is(err, want) || op.ID != "" {
			t.Errorf("%s: %+v, %v, want %v", what, op, err, want)
		}
	}
	refuse("a hook is left out", ErrPlan, func(r *Request) { r.Without = []string{"forward"} })
	refuse("another agency", ErrPlan, func(r *Request) { r.Agency = "health" })
	refuse("another deadline", ErrPlan, func(r *Request) { r.Deadline = time.Hour })
	refuse("another kind", ErrPrecheck, func(r *Request) { r.Kind = Rollback })
	a.table.unconfirmed(func() error { return errors.New("1 of 2 replicas") })
	refuse("a check fails", ErrPrecheck, nil)
	a.table.unconfirmed(nil)
	if ops, _ := a.List(); len(ops) != 0 {
		t.Errorf("journal has %+v", ops)
	}
	hooks := s.hooks
	s.hooks = hooks[:2]
	refuse("another hook", ErrPlan, nil)
	s.hooks = hooks
	locked, err := a.agency("police").Lock()
	if err != nil {
		t.Fatal(err)
	}
	unlocked, err := locked.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	c.put(unlocked)
	refuse("another epoch", ErrPlan, nil)
	req.Plan = plan()
	op, err := a.Run(t.Context(), req)
	if err != nil || op.Step != StepDone || op.Plan != req.Plan {
		t.Errorf("%+v, %v", op, err)
	}
	if all, err := c.real.Operations(t.Context()); err != nil || all[0].Plan != req.Plan {
		t.Errorf("%+v, %v", all, err)
	}
}
