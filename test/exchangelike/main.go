package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mailcutover/internal/platformtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "exchangelike:", err)
		os.Exit(1)
	}
}

// quirks are the flags.
type quirks struct {
	tarpit       time.Duration
	maxPerSource int
	idle, total  time.Duration
	busy         addressCounts
	noResources  int
	unknown      addressCounts
	dedupe       bool
	rewrite      bool
	smtputf8     bool
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var q quirks
	flags := flag.NewFlagSet("exchangelike", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:0", "host:port to listen at; port 0: a free one")
	record := flags.String("record", "", "`file` for a line of JSON per message")
	bodies := flags.Bool("bodies", false, "with what was stored, as base64, in each line")
	flags.DurationVar(&q.tarpit, "tarpit", 0, "delay of each 5yz")
	flags.IntVar(&q.maxPerSource, "max-per-source", 0, "connections from one address; 0: no limit")
	flags.DurationVar(&q.idle, "idle", 0, "time without a byte until 421 4.4.1; 0: 5m")
	flags.DurationVar(&q.total, "total", 0, "age of a connection until 421 4.4.2; 0: no limit")
	flags.Var(&q.busy, "432", "`addresses` whose mailbox is busy; a@x=n: for the first n messages")
	flags.IntVar(&q.noResources, "452", 0, "MAIL commands answered 452 4.3.1; -1: all")
	flags.Var(&q.unknown, "unknown", "`addresses` that are refused with 550 5.1.10")
	flags.BoolVar(&q.dedupe, "dedupe", false, "drop what a mailbox has by Message-ID")
	flags.BoolVar(&q.rewrite, "rewrite", false, "rewrite headers and MIME boundaries")
	flags.BoolVar(&q.smtputf8, "smtputf8", false, "announce SMTPUTF8")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}

	var output sync.Mutex
	say := func(words ...any) {
		output.Lock()
		defer output.Unlock()
		fmt.Fprintln(stdout, words...)
	}
	s := &store{
		dedupe: q.dedupe, rewrite: q.rewrite, bodies: *bodies,
		fired: func(quirk string) { say("quirk", quirk) },
		have:  make(map[string]bool),
	}
	if *record != "" {
		f, err := os.OpenFile(*record, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("open the record: %w", err)
		}
		defer f.Close()
		s.out = f
	}
	p, err := platformtest.Start(options(*listen, q, s))
	if err != nil {
		return err
	}
	defer p.Close()
	say("listening", p.Addr())
	<-ctx.Done()
	return nil
}

// addressCounts is a flag: addresses in lower case, and how often they are meant; -1
// for always.
type addressCounts map[string]int

func (a *addressCounts) String() string { return fmt.Sprint(map[string]int(*a)) }

func (a *addressCounts) Set(value string) error {
	if *a == nil {
		*a = make(addressCounts)
	}
	for item := range strings.SplitSeq(strings.ToLower(value), ",") {
		address, count, limited := strings.Cut(item, "=")
		n := -1
		if limited {
			var err error
			if n, err = strconv.Atoi(count); err != nil || n < 1 {
				return fmt.Errorf("%q: want ADDRESS or ADDRESS=COUNT", item)
			}
		}
		(*a)[address] = n
	}
	return nil
}

// take counts one down and reports whether the address was meant.
func (a addressCounts) take(address string) bool {
	address = strings.ToLower(address)
	n := a[address]
	if n > 0 {
		a[address]--
	}
	return n != 0
}
