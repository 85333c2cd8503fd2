// Command bench measures what docs/performance.md states and prints it: messages per
// second and CPU beside HAProxy and Postfix, the memory of idle connections, what a table
// of a million mailboxes costs, the spool, the check of lists against a directory, switches of
// agencies on three nodes, what each further node costs Redis, logins by IMAP beside HAProxy,
// nginx and Dovecot as proxies, recall between two Dovecots, comparing mailboxes, and retained
// copies. At the end one table has all that is compared.
//
// It promises that what is compared ran in turns in the same minutes on the same machine,
// and that mailcutover is the program that operators run, with JSON logs written to a file
// and metrics on. It refuses to skip: without HAProxy, Postfix (as root) and Redis it
// ends with an error that names the package. A bar that isn't reached is printed as NO and
// makes the exit status 2; a part that can't be measured, or for which no time was left, makes it
// 1, and the others go on.
//
//	make bench                      # no part is begun after an hour
//	make bench BENCH=-quick         # fewer and shorter rounds
//	go run ./bench -only throughput # one part: throughput, idle, table, spool, disk, identity, switch, nodes, logins, recall, verify or retained
//	go run ./bench -json
//	go run ./bench -profile DIR     # profiles of mailcutover under the load, nothing compared
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/test/peers"
)

var (
	errMissed = errors.New("a bar was not reached")
	errLate   = errors.New("no time was left")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, errMissed):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	rounds    int           // in which each contender has its turn
	turn      time.Duration // of one contender in one round
	warmUp    int           // messages of each contender before the first round, twice
	idle      int           // connections
	nodes     int           // whose idle connections are measured, one after the other
	settle    time.Duration // for which a memory must not shrink any more to count
	entries   int           // of the directory that lists are checked against
	agencies  int           // of the table
	mailboxes int           // of each agency
	held      []int         // messages in a spool whose memory is measured
	starts    int           // messages in a spool that a node starts with
	sizes     []int         // mailboxes of the agencies that are switched
	switches  int           // of the agency of 10,000; others a fifth of it
	changes   int           // whose way to three nodes is measured
	locks     int
	clusters  []int  // of how many nodes
	large     int    // messages of the large mailbox that a recall looks through
	against   string // another mailcutover, whose throughput, spool and logins are measured too; empty: none
	progress  io.Writer
}

// parts are what can be measured, in the order in which it is.
var parts = []struct {
	name    string
	measure func(t peers.TB, o options) figure.Part
}{
	{"throughput", throughput},
	{"idle", idle},
	{"table", table},
	{"spool", held},
	{"disk", disks},
	{"identity", identity},
	{"switch", switches},
	{"nodes", nodes},
	{"logins", logins},
	{"recall", recalled},
	{"verify", verified},
	{"retained", retainedCopies},
}

// report is what -json prints.
type report struct {
	Machine string        `json:"machine"`
	Began   time.Time     `json:"began"`
	Seconds float64       `json:"seconds"`
	Load    string        `json:"load_average_at_begin"`
	LoadEnd string        `json:"load_average_at_end"`
	Parts   []figure.Part `json:"parts"`
	Late    []string      `json:"no_time_left,omitempty"` // parts that were not begun
	Failed  []string      `json:"failed,omitempty"`       // parts that could not be measured
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := options{held: []int{100_000}, starts: 100_000, sizes: []int{100, 10_000, 100_000}, changes: 300, locks: 20, clusters: []int{1, 3, 6, 10}, nodes: 3, warmUp: 2000, settle: 4 * time.Second, progress: stderr}
	quick := flags.Bool("quick", false, "fewer and shorter rounds: figures are rougher")
	asJSON := flags.Bool("json", false, "print JSON")
	only := flags.String("only", "", "one part: throughput, idle, table, spool, disk, identity, switch, nodes, logins, recall, verify or retained")
	limit := flags.Duration("limit", time.Hour, "begin no part later than this; 0: no limit")
	profiles := flags.String("profile", "", "write profiles of mailcutover under the load into this directory, and compare nothing")
	flags.IntVar(&o.rounds, "rounds", 9, "rounds, each with one turn of each contender")
	flags.DurationVar(&o.turn, "turn", 4*time.Second, "length of a turn")
	flags.IntVar(&o.idle, "idle", 5000, "idle connections")
	flags.IntVar(&o.entries, "entries", 40_000, "entries of the directory")
	flags.IntVar(&o.agencies, "agencies", 200, "agencies of the large table")
	flags.IntVar(&o.mailboxes, "mailboxes", 5000, "mailboxes of each agency")
	flags.IntVar(&o.switches, "switches", 50, "cutovers and rollbacks of the agency of 10,000 mailboxes")
	flags.IntVar(&o.large, "large", 20_000, "messages of the large mailbox that a recall looks through")
	flags.StringVar(&o.against, "against", "", "another build of mailcutover, whose throughput, spool and logins are measured beside this one's")
	million := flags.Bool("million", false, "measure the memory of 1,000,000 held messages too (2 GB of disk)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("argument %q: want flags only", flags.Arg(0))
	}
	if *quick {
		o.rounds, o.turn, o.nodes = min(o.rounds, 5), min(o.turn, 1500*time.Millisecond), 1
		o.switches, o.sizes, o.clusters = min(o.switches, 10), []int{10_000}, []int{1, 10}
	}
	if *million {
		o.held = append(o.held, 1_000_000)
	}
	if o.rounds < 1 || o.turn <= 0 || o.idle < 1 || o.agencies < 1 || o.mailboxes < 1 || o.switches < 1 || o.large < 1 || o.entries < 1 {
		return errors.New("rounds, turn, idle, agencies, mailboxes, switches, large and entries must be positive")
	}
	if *profiles != "" {
		return peers.Run(ctx, "profile", stderr, func(t peers.TB) { profile(t, o, *only, *profiles) })
	}
	return measure(ctx, o, *only, *limit, *asJSON, stdout, stderr)
}

// measure measures one part, or all that can be begun within the limit.
func measure(ctx context.Context, o options, only string, limit time.Duration, asJSON bool, stdout, stderr io.Writer) error {
	r := report{Machine: machine(), Began: time.Now(), Load: loadAverage()}
	if !asJSON {
		fmt.Fprintf(stdout, "%s, load average %s\n", r.Machine, r.Load)
	}
	known := false
	var failed error
	for _, p := range parts {
		if only != "" && only != p.name {
			continue
		}
		known = true
		if limit > 0 && time.Since(r.Began) > limit {
			r.Late = append(r.Late, p.name)
			continue
		}
		began := time.Now()
		var part figure.Part
		if err := peers.Run(ctx, p.name, stderr, func(t peers.TB) { part = p.measure(t, o) }); err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.Failed = append(r.Failed, p.name)
			failed = errors.Join(failed, err)
			fmt.Fprintf(stderr, "bench: %s: %v; going on without it\n", p.name, err)
			continue
		}
		part.Seconds = math.Round(time.Since(began).Seconds())
		r.Parts = append(r.Parts, part)
		if !asJSON {
			if err := part.Print(stdout); err != nil {
				return err
			}
		}
	}
	if !known {
		return fmt.Errorf("-only %q: no such part", only)
	}
	r.Seconds, r.LoadEnd = math.Round(time.Since(r.Began).Seconds()), loadAverage()
	if err := r.print(stdout, asJSON); err != nil {
		return err
	}
	if len(r.Late) > 0 {
		failed = errors.Join(failed, fmt.Errorf("%w within %s for %s", errLate, limit, strings.Join(r.Late, ", ")))
	}
	if failed != nil {
		return fmt.Errorf("not everything was measured: %w", failed)
	}
	return missed(r.Parts)
}

// print writes what is to be seen of all parts together.
func (r *report) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return figure.PrintJSON(w, r)
	}
	if len(r.Parts) > 1 {
		if err := figure.PrintCompared(w, r.Parts); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s in all, load average %s at the end\n", time.Duration(r.Seconds)*time.Second, r.LoadEnd)
	return err
}

// missed names the figures that don't reach their bar.
func missed(parts []figure.Part) error {
	var names []string
	for _, p := range parts {
		for _, f := range p.Figures {
			if f.Missed() {
				names = append(names, f.Name)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errMissed, strings.Join(names, ", "))
}

// machine describes where this runs.
func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		lines := strings.Split(string(b), "\n")
		if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "model name") }); i >= 0 {
			_, name, _ := strings.Cut(lines[i], ":")
			model = strings.TrimSpace(name)
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("unknown")
	}
	return fmt.Sprintf("%d x %s, Linux %s, %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version())
}

// loadAverage returns the load of the last one, five and fifteen minutes.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(b))
	return strings.Join(f[:min(3, len(f))], " ")
}
