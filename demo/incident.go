package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"mailcutover/identity/check"
	"mailcutover/identity/list"
	"mailcutover/identity/report"
	"mailcutover/routing"
)

// IncidentOptions are the settings of [Incident].
type IncidentOptions struct {
	Out      io.Writer       // what people read
	Log      io.Writer       // the nodes' logs
	Language report.Language // empty: English
	Color    bool            // the report has terminal colours

	// Pause is how long each part stays on the screen before the next one begins. 0 is 3 s,
	// less than 0 is not at all.
	Pause time.Duration
}

// Incident shows how a list whose column was sorted without the others comes to be refused,
// and what it would have done: it is brought into force on a node without the check, and
// each mailbox is sent a message; then the same with the right list. It returns nil if
// every number is what it must be, [ErrBroken] if one isn't, and another error if
// something could not be started.
func Incident(ctx context.Context, o IncidentOptions) error {
	i, err := newIncident(ctx, o)
	if err != nil {
		return err
	}
	for _, act := range []func(context.Context) error{i.phaseOne, i.spreadsheet, i.refused, i.without, i.right} {
		if err := act(ctx); err != nil {
			return err
		}
		if err := i.pause(ctx); err != nil {
			return err
		}
	}
	return i.end()
}

// newIncident returns the demo with its directory read.
func newIncident(ctx context.Context, o IncidentOptions) (*incident, error) {
	if o.Language == "" {
		o.Language = report.English
	}
	if o.Pause == 0 {
		o.Pause = 3 * time.Second
	}
	i := &incident{IncidentOptions: o, all: people(), began: time.Now()}
	d, err := newMemory(i.all)
	if err != nil {
		return nil, fmt.Errorf("make the directory of the demo: %w", err)
	}
	if i.ad, err = read(ctx, d); err != nil {
		return nil, fmt.Errorf("read the directory of the demo: %w", err)
	}
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	if i.key, err = list.NewKey(secret[:]); err != nil {
		return nil, err
	}
	return i, nil
}

// incident is what the acts hand on.
type incident struct {
	IncidentOptions
	all   []mailbox
	ad    *reading
	key   list.Key
	began time.Time

	one    []*list.List // phase one's
	pasted []pasted     // phase two's, as the spreadsheet has them after the sort
	wrong  []string     // numbers that aren't what they must be
}

// pasted is a row of the spreadsheet.
type pasted struct {
	agency  routing.AgencyID
	account string
	id      routing.MailboxID
}

// phaseOne makes the lists of phase one from the directory, as they should be made.
func (i *incident) phaseOne(context.Context) error {
	i.say("The directory has %d mailboxes of %d agencies.", "Das Verzeichnis hat %d Postfächer von %d Dienststellen.", len(i.all), len(agencies))
	lists, right, err := i.generate(nil)
	if err != nil {
		return err
	}
	i.one = lists
	i.say("Phase one: %d lists are generated from it. Checked row by row: %d of %d right.",
		"Phase eins: Daraus werden %d Listen erzeugt. Zeile für Zeile geprüft: %d von %d richtig.", len(lists), right, len(i.all))
	i.must(right == len(i.all), "phase one: %d of %d rows are right", right, len(i.all))
	return nil
}

// generate makes the lists of all agencies, writes and reads them, and checks what was read;
// it returns how many rows are right.
func (i *incident) generate(earlier []*list.List) (lists []*list.List, right int, err error) {
	for _, a := range agencies {
		agency := routing.AgencyID(a.id)
		first := 1
		var before []*list.List
		for _, l := range earlier {
			if l.Agency == agency {
				before, first = append(before, l), l.Number+1
			}
		}
		made, err := list.Generate(list.Order{Agency: agency, First: first, By: "demo", Made: time.Now(), Key: i.key}, i.ad.objects[agency])
		if err != nil {
			return nil, 0, err
		}
		for _, l := range made {
			var file bytes.Buffer
			if err := l.Write(&file); err != nil {
				return nil, 0, err
			}
			got, err := list.Read(file.Bytes(), list.Options{Agency: agency, Key: &i.key, Source: l.ID + ".csv"})
			if err != nil {
				return nil, 0, fmt.Errorf("read list %s: %w", l.ID, err)
			}
			if r := check.Check(check.Input{List: got, Key: &i.key, Source: i.ad.facts, Earlier: before}); r.Clean() {
				right += r.Right
			}
			lists = append(lists, got)
		}
	}
	return lists, right, nil
}

// spreadsheet pastes the lists together and sorts one column without the others.
func (i *incident) spreadsheet(context.Context) error {
	accounts := make([]string, 0, len(i.all))
	for _, l := range i.one {
		for _, r := range l.Rows {
			account := i.ad.id[r.ID].Account
			accounts = append(accounts, account)
			i.pasted = append(i.pasted, pasted{agency: r.Agency, account: account, id: r.ID})
		}
	}
	before := slices.Clone(i.pasted)
	slices.Sort(accounts)
	for n := range i.pasted {
		i.pasted[n].account = accounts[n]
	}
	fmt.Fprintln(i.Out)
	i.say("For phase two somebody pastes them into one sheet, and sorts the column Accountname. Only this column.",
		"Für Phase zwei fügt jemand sie in einem Blatt zusammen und sortiert die Spalte Accountname. Nur diese Spalte.")
	fmt.Fprintf(i.Out, "\n            %-12s %-36s    %s\n", "Accountname", "objectGUID", i.pick("before the sort", "vor dem Sortieren"))
	for n := range 4 {
		fmt.Fprintf(i.Out, "     %4d   %-12s %s    %s\n", n+2, i.pasted[n].account, i.pasted[n].id, before[n].account)
	}
	fmt.Fprintln(i.Out, "      ...")
	return nil
}

// file is the sheet as German Excel saves it as CSV.
func (i *incident) file() []byte {
	var b bytes.Buffer
	b.WriteString("\xef\xbb\xbf")
	out := csv.NewWriter(&b)
	out.Comma, out.UseCRLF = ';', true
	_ = out.Write([]string{"Dienststelle", "Accountname", "objectGUID"}) // a buffer takes everything
	for _, p := range i.pasted {
		_ = out.Write([]string{string(p.agency), p.account, p.id.String()})
	}
	out.Flush()
	return b.Bytes()
}

// refused imports the sheet, as an engineer would.
func (i *incident) refused(context.Context) error {
	const name = "phase2.csv"
	fmt.Fprintln(i.Out)
	i.say("It is imported as a list of agency %s.", "Sie wird als Liste der Dienststelle %s eingelesen.", agencies[0].id)
	got, err := list.Read(i.file(), list.Options{Agency: routing.AgencyID(agencies[0].id), ID: "health-0003", Source: name, Key: &i.key})
	var problems *list.Problems
	if !errors.As(err, &problems) {
		i.must(false, "the sheet was read without a problem: %v", err)
		return nil
	}
	i.say("Refused when it is read, for %d rows, the first of them:", "Schon beim Lesen abgelehnt, wegen %d Zeilen, darunter:", problems.Total)
	for _, p := range problems.List[:min(2, len(problems.List))] {
		fmt.Fprintf(i.Out, "          %s\n", p)
	}
	i.must(problems.Total == len(i.all)-agencies[0].mailboxes, "%d rows were refused as another agency's, want %d", problems.Total, len(i.all)-agencies[0].mailboxes)
	i.say("What the directory says of the rest:", "Was das Verzeichnis zum Rest sagt:")
	fmt.Fprintln(i.Out)
	r := check.Check(check.Input{List: got, Source: i.ad.facts, Earlier: i.one})
	if err := report.Text(i.Out, r, report.Options{Language: i.Language, Color: i.Color, Samples: 6, Rows: 4, Headers: got.Headers, Source: name}); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	mixed := 0
	for _, p := range r.Permutations {
		mixed += len(p.Pairs)
		i.must(p.Column == check.ColumnAccount && p.How == check.Sorted, "column %v is called %v", p.Column, p.How)
	}
	i.must(!r.Clean(), "the list is clean")
	i.must(len(r.Permutations) == 1 && mixed == i.crossed(), "%d permutations of %d rows, want one of %d", len(r.Permutations), mixed, i.crossed())
	i.must(r.Crossed() == i.crossed(), "the check counts %d mailboxes that would get another one's mail, want %d", r.Crossed(), i.crossed())
	return nil
}

// crossed is how many rows of the sheet give a mailbox's mail to another one.
func (i *incident) crossed() (n int) {
	for _, p := range i.pasted {
		if i.ad.account[p.account].ID != p.id {
			n++
		}
	}
	return n
}

// without brings the sheet into force on a node that has no check.
func (i *incident) without(ctx context.Context) error {
	fmt.Fprintln(i.Out)
	i.say("The same sheet without the check: a node gets it as its mapping, the agencies are cut over to %s,",
		"Dieselbe Liste ohne die Prüfung: Ein Knoten bekommt sie als Zuordnung, die Dienststellen wechseln zu %s,", target)
	i.say("and every mailbox is sent one message.", "und an jedes Postfach geht eine Nachricht.")
	places := i.places()
	pairs := make([]pairing, 0, len(i.pasted))
	for _, p := range i.pasted {
		owner, given := i.ad.account[p.account], places[p.id]
		address := string(owner.Primary())
		pairs = append(pairs, pairing{address: address, agency: places[owner.ID].agency, id: p.id, target: given.at[target]})
	}
	strays, err := i.deliver(ctx, pairs)
	if err != nil {
		return err
	}
	outside := 0
	for _, s := range strays {
		if s.of.agency != s.in.agency {
			outside++
		}
	}
	i.say("%d of %d mailboxes received another one's mail, %d of them another agency's:", "%d von %d Postfächern bekamen die Post eines anderen, %d davon die einer anderen Dienststelle:",
		len(strays), len(i.all), outside)
	for n, s := range strays {
		if n == 5 {
			fmt.Fprintln(i.Out, "          ...")
			break
		}
		fmt.Fprintf(i.Out, "          %s → %s\n", s.of.address, s.in.address)
	}
	i.must(len(strays) == i.crossed() && len(strays) > 0, "%d mailboxes received another one's mail, want %d", len(strays), i.crossed())
	return nil
}

// right generates phase two's lists from the directory, with phase one's to compare, and
// brings them into force.
func (i *incident) right(ctx context.Context) error {
	lists, right, err := i.generate(i.one)
	if err != nil {
		return err
	}
	fmt.Fprintln(i.Out)
	i.say("Now phase two's lists as they should be made: generated, and compared with phase one's. %d of %d rows right.",
		"Nun die Listen der Phase zwei, wie sie sein sollen: erzeugt und mit Phase eins verglichen. %d von %d Zeilen richtig.", right, len(i.all))
	i.must(right == len(i.all), "phase two: %d of %d rows are right", right, len(i.all))
	places := i.places()
	var pairs []pairing
	for _, l := range lists {
		for _, r := range l.Rows {
			pairs = append(pairs, pairing{address: string(r.Address), agency: string(r.Agency), id: r.ID, target: places[r.ID].at[target]})
		}
	}
	strays, err := i.deliver(ctx, pairs)
	if err != nil {
		return err
	}
	i.say("%d of %d mailboxes received their own mail, and no other.", "%d von %d Postfächern bekamen ihre eigene Post und keine andere.", len(i.all)-len(strays), len(i.all))
	i.must(len(strays) == 0, "with the right lists %d mailboxes received another one's mail", len(strays))
	return nil
}

// places are the mailboxes by their ids.
func (i *incident) places() map[routing.MailboxID]*mailbox {
	m := make(map[routing.MailboxID]*mailbox, len(i.all))
	for n := range i.all {
		m[i.all[n].id] = &i.all[n]
	}
	return m
}

// end says what came of it.
func (i *incident) end() error {
	fmt.Fprintln(i.Out)
	if len(i.wrong) > 0 {
		fmt.Fprintf(i.Out, "A NUMBER IS WRONG:\n  %s\n", strings.Join(i.wrong, "\n  "))
		return ErrBroken
	}
	i.say("The check refused what %d mailboxes would have felt, before one message went astray.",
		"Die Prüfung hat abgelehnt, was %d Postfächer gespürt hätten, bevor eine Nachricht fehlging.", i.crossed())
	return nil
}

// must notes a number that isn't what it must be.
func (i *incident) must(ok bool, format string, args ...any) {
	if !ok {
		i.wrong = append(i.wrong, fmt.Sprintf(format, args...))
	}
}

func (i *incident) pick(english, german string) string {
	if i.Language == report.German {
		return german
	}
	return english
}

// say prints a line with the time since the start, in the language asked for.
func (i *incident) say(english, german string, args ...any) {
	fmt.Fprintf(i.Out, "%6.1f s  %s\n", time.Since(i.began).Seconds(), fmt.Sprintf(i.pick(english, german), args...))
}

func (i *incident) pause(ctx context.Context) error {
	if i.Pause < 0 {
		return nil
	}
	t := time.NewTimer(i.Pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("demo ended early: %w", context.Cause(ctx))
	}
}
