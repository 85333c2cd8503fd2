package cluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// wanted returns a count from the environment, or else usual.
func wanted(t *testing.T, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: want a number", name, text)
	}
	return n
}

// TestCampaign switches an agency back and forth while a node at a time is stopped, killed
// or cut off, until it has done CLUSTER_SWITCHES switches with CLUSTER_KILLS kills of nodes
// in between, or CLUSTER_SECONDS are over. Without them it does a little of each. The end of
// each part is judged; what was reached is printed.
func TestCampaign(t *testing.T) {
	t.Parallel()
	switches, kills := wanted(t, "CLUSTER_SWITCHES", 2), wanted(t, "CLUSTER_KILLS", 2)
	within := time.Duration(wanted(t, "CLUSTER_SECONDS", 600)) * time.Second
	began := time.Now()
	var all counts
	for part := 0; (all.switches < switches || all.kills < kills) && time.Since(began) < within; part++ {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			c := start(t, Options{Settled: time.Minute, Logins: true})
			c.logIn(t.Context())
			l := c.load(t.Context())
			l.more(t, 30)
			left := counts{switches: min(10, switches-all.switches), kills: min(20, kills-all.kills)}
			done := c.storm(t, l, left, began.Add(within))
			v := c.end(t)
			done.switches, done.copies, done.named, done.logins, done.submissions = v.Done, v.Copies, v.Named, v.Visits, v.Submitted
			all.add(done)
			all.messages += v.Messages
		})
		t.Logf("so far: %s, in %s", &all, time.Since(began).Round(time.Second))
		if t.Failed() {
			return
		}
	}
	if all.switches < switches || all.kills < kills {
		t.Logf("NOT REACHED within %s: %d switches and %d kills were wanted", within, switches, kills)
	}
}

// counts are what a campaign did.
type counts struct {
	switches, kills, stops, cuts, silences, lost int
	messages, copies, named                      int
	logins, submissions                          int
}

func (a *counts) add(b counts) {
	a.switches += b.switches
	a.kills += b.kills
	a.stops += b.stops
	a.cuts += b.cuts
	a.silences += b.silences
	a.lost += b.lost
	a.copies += b.copies
	a.named += b.named
	a.logins += b.logins
	a.submissions += b.submissions
}

func (a *counts) String() string {
	return fmt.Sprintf("%d switches done, %d kills, %d stops, %d times cut off from Redis, %d times a silent platform, %d times answers to the dot lost; %d messages, %d copies, %d in doubt; %d logins, %d submissions",
		a.switches, a.kills, a.stops, a.cuts, a.silences, a.lost, a.messages, a.copies, a.named, a.logins, a.submissions)
}

// storm switches health again and again and does something to a node meanwhile.
func (c *Cluster) storm(t *testing.T, l *Load, left counts, end time.Time) (done counts) {
	t.Helper()
	for (left.switches > 0 || left.kills > 0) && time.Now().Before(end) {
		runner := c.Nodes[rand.N(len(c.Nodes))]
		o := c.begin(t, runner, "health")
		left.switches--
		for more := true; more; more = left.kills > 0 && rand.N(2) == 0 {
			time.Sleep(rand.N(60 * time.Millisecond)) // any moment of an operation
			n := c.Nodes[rand.N(len(c.Nodes))]
			kind := rand.N(8)
			if left.kills > left.switches && rand.N(2) == 0 { // behind
				kind = 0
			}
			switch {
			case kind < 3:
				restart := c.Crash(t, n)
				time.Sleep(rand.N(200 * time.Millisecond))
				restart()
				done.kills++
				left.kills--
			case kind == 3:
				thaw := c.Freeze(t, n)
				time.Sleep(rand.N(5 * time.Second)) // shorter and longer than lease, limit and fence
				thaw()
				done.stops++
			case kind == 4:
				mended := c.Trouble("cut off from Redis", n.Index, "")
				n.Redis.Silence()
				time.Sleep(rand.N(4 * time.Second))
				n.Redis.Mend()
				c.Serves(t, n)
				mended()
				done.cuts++
			case kind == 5:
				wire := n.To[[]string{Exchange, OX}[rand.N(2)]]
				mended := c.Trouble("platform is silent", n.Index, "")
				wire.Silence()
				time.Sleep(rand.N(1500 * time.Millisecond))
				wire.Mend()
				l.more(t, 20)
				mended()
				done.silences++
			default:
				wire := n.To[[]string{Exchange, OX}[rand.N(2)]]
				mended := c.Trouble("answers to dots are lost", n.Index, "")
				wire.DropDots(3)
				l.more(t, 20)
				wire.DropDots(0)
				mended()
				done.lost++
			}
		}
		o.finish(t)
		l.more(t, 10)
	}
	return done
}
