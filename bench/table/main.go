// Command table measures what the state table of a large installation costs a node: how
// long a replica takes to load it from Redis and from its disk, how much memory it holds
// afterwards and after one more mapping, and how long a decision takes.
//
// It starts a redis-server of its own, with appendfsync everysec, on a socket in a
// temporary directory, fills it in one process and measures in another, so that what
// filling left behind isn't counted. Nothing else than redis-server is needed:
//
//	go run ./bench/table
//	go run ./bench/table -agencies 20 -mailboxes 500
//
// Each mailbox has two addresses and one login.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"mailcutover/bench/figure"
	"mailcutover/routing"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

// size is what is measured.
type size struct{ agencies, mailboxes int }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("table", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var s size
	flags.IntVar(&s.agencies, "agencies", 200, "number of agencies")
	flags.IntVar(&s.mailboxes, "mailboxes", 5000, "mailboxes of each agency")
	step := flags.String("step", "", "for the program itself: fill or load")
	asJSON := flags.Bool("json", false, "print the figures as JSON")
	dir := flags.String("dir", "", "for the program itself: its directory")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch *step {
	case "fill":
		return fill(ctx, *dir, s)
	case "load":
		part, err := measure(ctx, *dir, s)
		if err != nil {
			return err
		}
		return figure.PrintJSON(stdout, part)
	case "":
		part, err := all(ctx, s, stderr)
		if err != nil {
			return err
		}
		if *asJSON {
			return figure.PrintJSON(stdout, part)
		}
		return part.Print(stdout)
	}
	return fmt.Errorf("step %q: want fill or load", *step)
}

// all starts Redis and then this program again for each step.
func all(ctx context.Context, s size, stderr io.Writer) (part figure.Part, err error) {
	dir, err := os.MkdirTemp("", "mailcutover-table-")
	if err != nil {
		return part, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	redis := exec.CommandContext(ctx, "redis-server", "--port", "0", "--unixsocket", socket(dir), "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--logfile", filepath.Join(dir, "redis.log"))
	redis.Stderr = stderr
	if err := redis.Start(); err != nil {
		return part, fmt.Errorf("start redis-server: %w", err)
	}
	defer func() { cancel(); redis.Wait() }() // killed: it holds nothing that anybody wants
	self, err := os.Executable()
	if err != nil {
		return part, err
	}
	var printed bytes.Buffer
	for _, step := range []string{"fill", "load"} {
		c := exec.CommandContext(ctx, self, "-step", step, "-dir", dir, "-agencies", fmt.Sprint(s.agencies), "-mailboxes", fmt.Sprint(s.mailboxes))
		c.Stdout, c.Stderr = &printed, stderr
		if err := c.Run(); err != nil {
			return part, fmt.Errorf("%s: %w", step, err)
		}
	}
	if err := json.Unmarshal(printed.Bytes(), &part); err != nil {
		return part, fmt.Errorf("read what load printed: %w", err)
	}
	return part, nil
}

func socket(dir string) string { return filepath.Join(dir, "redis.sock") }

// row is mailbox n of agency number a.
func row(a, n int) routing.Row {
	domain := fmt.Sprintf("agency%d.example", a)
	return routing.Row{
		// Directory ids have no order that anything else follows.
		Mailbox: routing.MailboxID{0: byte(n * 197), 1: byte(n >> 8), 2: byte(n), 3: byte(n * 31), 4: byte(a), 5: byte(a >> 8), 8: 0x8b, 15: byte(n * 7)},
		Kind:    routing.KindUser,
		Addresses: []routing.Address{
			routing.Address(fmt.Sprintf("given%d.family%d@%s", n, n*31%9973, domain)),
			routing.Address(fmt.Sprintf("p%07d@%s", n, domain)),
		},
		Logins: []routing.Login{routing.Login(fmt.Sprintf(`amt%d\p%07d`, a, n))},
	}
}

func agencyID(a int) routing.AgencyID { return routing.AgencyID(fmt.Sprintf("agency%d", a)) }

func mapping(a, mailboxes int) (*routing.Mapping, error) {
	rows := make([]routing.Row, mailboxes)
	for n := range rows {
		rows[n] = row(a, n)
	}
	return routing.NewMapping(agencyID(a), rows)
}
