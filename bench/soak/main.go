// Command soak keeps three nodes at work for an hour, and says whether all that they took for it
// came back: goroutines, descriptors, memory and room on the disk.
//
// The nodes are the program that operators run, as processes of their own on one Redis. Mail
// comes by SMTP and LMTP, mail programs log in, idle and submit, the API and /metrics are asked,
// and two agencies are cut over and rolled back in turns, one switch after the other; the mail of
// a third goes on meanwhile. What a node uses is read three times: at rest, after a minute or less
// of the same load, which is what the end is held to; under load, again and again, for the
// peaks; and at rest, at the end.
//
// It promises that all the mail and logins of the hour are judged as package cluster does, by what
// the platforms recorded. It refuses to skip: without Redis it ends with an error that names the
// package. Something that did not come back, or a broken promise, makes the exit status 2;
// what can't be started or measured makes it 1. SIGINT ends the load early, and then judges.
//
//	make soak                      # an hour, and five minutes around it
//	make soak SOAK=10m
//	go run ./bench/soak -for 10m -rate 200 -every 2s
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"mailcutover/test/peers"
)

// errLeft says that something did not come back, or that a promise was broken.
var errLeft = errors.New("not everything came back")

func main() {
	err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, errLeft):
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	long   time.Duration // of the load
	rate   float64       // messages a second, over all nodes and agencies
	every  time.Duration // from one switch to the next
	report time.Duration // between two lines about what is used
	rest   time.Duration // for which nothing must shrink any more before it counts
	out    io.Writer
	told   io.Writer // progress
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := options{out: stdout, told: stderr}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&o.long, "for", time.Hour, "length of the load")
	flags.Float64Var(&o.rate, "rate", 50, "messages a second")
	flags.DurationVar(&o.every, "every", 5*time.Second, "from one switch to the next")
	flags.DurationVar(&o.report, "report", time.Minute, "between two lines about what is used")
	flags.DurationVar(&o.rest, "rest", 20*time.Second, "for which nothing shrinks before a node counts as at rest")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("argument %q: want flags only", flags.Arg(0))
	}
	if o.long <= 0 || o.rate <= 0 || o.every <= 0 || o.report <= 0 || o.rest <= 0 {
		return errors.New("for, rate, every, report and rest must be positive")
	}
	var left []string
	err := peers.Run(ctx, "soak", stderr, func(t peers.TB) { left = soak(t, o) })
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%w: %d findings", errLeft, len(left))
	}
	return nil
}

// early returns a context that ends with SIGINT or SIGTERM: the load then, not the judgement.
func early(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
}
