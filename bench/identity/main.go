// Command identity reads a directory and checks the lists of all its agencies, again and
// again, and prints what each round took: the part of the bench that runs in a process of its
// own, because it measures memory.
//
// A round begins with each line on its standard input, and ends with a line of JSON on its
// standard output ([Round]). It does what a node does: every object is read and kept as
// the view that is asked later (identity/watch), then each list is read from its CSV and
// checked row by row, digests included. The lists are generated before the first round.
//
// It refuses a directory whose lists aren't all right. The bench starts it and slapd.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mailcutover/identity/check"
	"mailcutover/identity/ldapdir"
	"mailcutover/identity/list"
	"mailcutover/identity/model"
	"mailcutover/identity/watch"
	"mailcutover/routing"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "identity:", err)
		os.Exit(1)
	}
}

// Round is what one round took.
type Round struct {
	Objects, Lists, Rows int
	Read, Check          time.Duration
	Resident, Peak       float64 // bytes, after the round: VmRSS, and VmHWM since the start
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("identity", flag.ContinueOnError)
	flags.SetOutput(stderr)
	server := flags.String("server", "", "the directory, as ldap://HOST:PORT")
	base := flags.String("base", "", "DN below which there is an ou agencyN for each agency")
	bind := flags.String("bind", "", "DN to log in with")
	password := flags.String("password", "", "its password")
	agencies := flags.Int("agencies", 8, "number of agencies")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var rules []model.Rule
	for n := range *agencies {
		id := fmt.Sprintf("agency%d", n)
		rules = append(rules, model.Rule{Agency: routing.AgencyID(id), Base: "ou=" + id + "," + *base})
	}
	m, err := model.New(model.Options{Rules: rules})
	if err != nil {
		return err
	}
	c, err := ldapdir.New(ldapdir.Options{
		Name: "ad", Servers: []string{*server}, Base: *base, Map: ldapdir.Presets()["ad"],
		BindDN: *bind, Password: func() (string, error) { return *password, nil },
	})
	if err != nil {
		return err
	}
	defer c.Close()
	w, err := watch.New(watch.Options{Source: c, Model: m})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = w.Run(ctx) }() // it ends with ctx, and with nothing else
	defer func() { stop(); <-ended }()
	if err := w.Refresh(ctx); err != nil {
		return err
	}
	key, err := list.NewKey([]byte("a key for the bench, not secret"))
	if err != nil {
		return err
	}
	files, err := generate(w, m, key)
	if err != nil {
		return err
	}
	lines, out := bufio.NewScanner(stdin), json.NewEncoder(stdout)
	for lines.Scan() {
		r, err := round(ctx, w, key, files)
		if err != nil {
			return err
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return lines.Err()
}

// file is a list as it is kept outside.
type file struct {
	agency routing.AgencyID
	text   []byte
}

func generate(w *watch.Watch, m *model.Model, key list.Key) ([]file, error) {
	source, _ := w.Views()
	var files []file
	for _, agency := range m.Agencies() {
		lists, err := list.Generate(list.Order{Agency: agency, Made: time.Now(), Key: key}, source.Objects(agency))
		if err != nil {
			return nil, err
		}
		for _, l := range lists {
			var b bytes.Buffer
			if err := l.Write(&b); err != nil {
				return nil, err
			}
			files = append(files, file{agency, b.Bytes()})
		}
	}
	return files, nil
}

func round(ctx context.Context, w *watch.Watch, key list.Key, files []file) (r Round, err error) {
	began := time.Now()
	if err := w.Refresh(ctx); err != nil {
		return r, err
	}
	read := time.Now()
	source, _ := w.Views()
	r.Objects, r.Lists, r.Read = source.Snapshot.Objects, len(files), read.Sub(began)
	for _, f := range files {
		l, err := list.Read(f.text, list.Options{Agency: f.agency, Key: &key})
		if err != nil {
			return r, err
		}
		c := check.Check(check.Input{List: l, Key: &key, Source: source.Facts})
		if !c.Clean() || c.Warnings > 0 {
			return r, fmt.Errorf("list %s: %d rows are wrong, %d have a warning", l.ID, c.Wrong, c.Warnings)
		}
		r.Rows += len(c.Rows)
	}
	r.Check = time.Since(read)
	if r.Rows == 0 {
		return r, errors.New("the directory has no mailbox of an agency")
	}
	if r.Resident, err = memory("VmRSS:"); err != nil {
		return r, err
	}
	r.Peak, err = memory("VmHWM:")
	return r, err
}

// memory returns a figure of this process, in bytes (proc(5)).
func memory(name string) (float64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return float64(n) * 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", name)
}
