package report

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"

	_ "embed"

	"mailcutover/identity/check"
	"mailcutover/identity/list"
)

// Options say how a report looks.
type Options struct {
	Language Language
	Color    bool // for [Text]: with terminal colours
	Samples  int  // pairs of a permutation that are shown; 0 is 10
	Rows     int  // rows that are shown of a kind; 0 is 50, less than 0 all
	Headers  list.Headers
	Source   string // the file's name; empty: the list's id

	// Problems are what is wrong with the file itself: the list is refused, whatever its rows
	// are. nil: nothing. Rows that couldn't be read are not among those of the result.
	Problems *list.Problems
}

// view is a result in words.
type view struct {
	Lang     Language
	Title    string
	Verdict  string
	Severity string // wrong, warning or fine
	Counts   string
	When     string
	File     section // what is wrong with the file itself
	Mixed    []mixed
	Wrong    section
	Warnings section
}

type mixed struct {
	Text  string
	Harm  string
	Pairs []string
	More  string
}

type section struct {
	Title   string
	Columns []string
	Rows    []row
	More    string
}

type row struct {
	Line    int
	Address string
	ID      string
	Texts   []string
}

func newView(r *check.Result, o Options) *view {
	l := o.Language
	v := &view{Lang: l, Severity: "fine"}
	name := r.List
	if o.Source != "" {
		name = fmt.Sprintf("%q", o.Source)
	}
	v.Title = l.say("Check of list %s, agency %s", "Prüfung der Liste %s, Dienststelle %s", name, r.Agency)
	switch {
	case o.Problems != nil:
		v.Severity = "wrong"
		v.Verdict = l.say("REFUSED: the file itself is wrong in %d places.", "ABGELEHNT: die Datei selbst ist an %d Stellen falsch.", o.Problems.Total)
		if r.Wrong > 0 {
			v.Verdict += " " + l.say("Of the %d rows that could be read, %d are wrong.", "Von den %d lesbaren Zeilen sind %d falsch.", len(r.Rows), r.Wrong)
		}
		v.crossed(r)
	case !r.Clean():
		v.Severity = "wrong"
		v.Verdict = l.say("REFUSED: %d of %d rows are wrong.", "ABGELEHNT: %d von %d Zeilen sind falsch.", r.Wrong, len(r.Rows))
		v.crossed(r)
	case r.Warnings > 0:
		v.Severity = "warning"
		v.Verdict = l.say("No row is wrong. Rows to look at before you approve the list: %d.", "Keine Zeile ist falsch. Vor der Freigabe anzusehen: %d.", r.Warnings)
	default:
		v.Verdict = l.say("Every one of the %d rows is right.", "Alle %d Zeilen sind richtig.", len(r.Rows))
	}
	v.Counts = l.say("%d right, %d with a warning, %d wrong", "%d richtig, %d mit Hinweis, %d falsch", r.Right, r.Warnings, r.Wrong)
	if r.At.IsZero() {
		v.When = l.Pick("compared with no directory", "mit keinem Verzeichnis verglichen")
	} else {
		v.When = l.say("directory read at %s", "Verzeichnis gelesen am %s", l.when(r.At))
	}
	v.File = newFile(o)
	for i := range r.Permutations {
		v.Mixed = append(v.Mixed, newMixed(&r.Permutations[i], o))
	}
	v.Wrong = newSection(r, o, check.Wrong, l.Pick("Wrong", "Falsch"))
	v.Warnings = newSection(r, o, check.Warning, l.Pick("Look at these", "Bitte ansehen"))
	return v
}

// crossed adds to the verdict how many mailboxes would get another one's mail.
func (v *view) crossed(r *check.Result) {
	if n := r.Crossed(); n > 0 {
		v.Verdict += " " + v.Lang.say("Mailboxes that would receive another one's mail: %d.", "Postfächer, die Post eines anderen bekämen: %d.", n)
	}
}

// newFile is what is wrong with the file itself.
func newFile(o Options) (s section) {
	if o.Problems == nil {
		return s
	}
	l := o.Language
	s.Title = l.say("The file (%d)", "Die Datei (%d)", o.Problems.Total)
	s.Columns = []string{l.Pick("Row", "Zeile"), l.Pick("Found", "Befund")}
	most := len(o.Problems.List)
	if o.Rows >= 0 {
		most = min(most, cmp.Or(o.Rows, defaultRows))
	}
	for _, p := range o.Problems.List[:most] {
		s.Rows = append(s.Rows, row{Line: p.Line, Texts: []string{l.Pick(p.Text, p.German)}})
	}
	if more := o.Problems.Total - most; more > 0 {
		s.More = l.say("and %d more", "und %d weitere", more)
	}
	return s
}

// defaultRows is how many rows of a kind are shown unless asked for otherwise.
const defaultRows = 50

func newMixed(p *check.Permutation, o Options) mixed {
	l := o.Language
	m := mixed{
		Text: l.permutation(p, &o.Headers),
		Harm: l.say("Brought into force, it would send the mail of %d mailboxes to other ones:", "In Kraft gesetzt, ginge die Post von %d Postfächern an andere:", len(p.Pairs)),
	}
	samples := o.Samples
	if samples == 0 {
		samples = 10
	}
	for i := range p.Pairs[:min(samples, len(p.Pairs))] {
		pair := &p.Pairs[i]
		to := string(pair.To)
		if to == "" {
			to = pair.Given.String()
		}
		m.Pairs = append(m.Pairs, l.say("row %d: %s → %s", "Zeile %d: %s → %s", pair.Line, pair.Name, to))
	}
	if more := len(p.Pairs) - len(m.Pairs); more > 0 {
		m.More = l.say("and %d more", "und %d weitere", more)
	}
	return m
}

func newSection(r *check.Result, o Options, severity check.Severity, title string) section {
	l := o.Language
	s := section{Columns: []string{l.Pick("Row", "Zeile"), l.Pick("Address and directory id", "Adresse und Verzeichnis-ID"), l.Pick("Found", "Befund")}}
	most := o.Rows
	if most == 0 {
		most = defaultRows
	}
	shown, total := telling(r, severity, most)
	for _, i := range shown {
		s.Rows = append(s.Rows, newRow(i, &r.Rows[i], l))
	}
	s.Title = fmt.Sprintf("%s (%d)", title, total)
	if more := total - len(s.Rows); more > 0 {
		s.More = l.say("and %d more", "und %d weitere", more)
	}
	return s
}

// telling returns the numbers of the rows of a severity, in the list's order: where there are more
// than most, those whose findings explain most, so that a few that matter aren't lost among many that
// are all alike. Less than 0: all.
func telling(r *check.Result, severity check.Severity, most int) (shown []int, total int) {
	for i := range r.Rows {
		if r.Rows[i].Severity() == severity {
			shown = append(shown, i)
		}
	}
	total = len(shown)
	if most < 0 || total <= most {
		return shown, total
	}
	slices.SortStableFunc(shown, func(a, b int) int {
		return cmp.Compare(r.Rows[a].Code().Rank(), r.Rows[b].Code().Rank())
	})
	shown = shown[:most]
	slices.Sort(shown)
	return shown, total
}

// Tally counts the rows of a severity by what was found of them, in words of [check.Code], what
// explains most first: "table 3, not-on-target 197". A row of which several things were found counts for
// each.
func Tally(r *check.Result, severity check.Severity) string {
	counts := make(map[check.Code]int)
	for i := range r.Rows {
		v := &r.Rows[i]
		if v.Severity() != severity {
			continue
		}
		var seen []check.Code
		for j := range v.Findings {
			if c := v.Findings[j].Code; c.Severity() == severity && !slices.Contains(seen, c) {
				seen = append(seen, c)
				counts[c]++
			}
		}
	}
	codes := slices.SortedFunc(maps.Keys(counts), func(a, b check.Code) int { return cmp.Compare(a.Rank(), b.Rank()) })
	words := make([]string, len(codes))
	for i, c := range codes {
		words[i] = fmt.Sprintf("%s %d", c, counts[c])
	}
	return strings.Join(words, ", ")
}

func newRow(i int, v *check.Verdict, l Language) row {
	out := row{Line: v.Row.Line, Address: string(v.Row.Address), ID: v.Row.ID.String()}
	if out.Line == 0 {
		out.Line = i + 1
	}
	if out.Address == "" {
		out.Address = v.Row.Account
	}
	for j := range v.Findings {
		out.Texts = append(out.Texts, l.finding(&v.Findings[j], &v.Row))
	}
	return out
}

// Text writes a report for a terminal.
func Text(w io.Writer, r *check.Result, o Options) error {
	v := newView(r, o)
	paint := func(code, s string) string {
		if !o.Color {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	const bold, red, yellow, green = "1", "1;31", "33", "32"
	color := map[string]string{"wrong": red, "warning": yellow, "fine": green}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n\n%s\n", paint(bold, v.Title), v.When, paint(color[v.Severity], v.Verdict))
	if len(v.File.Rows) > 0 {
		fmt.Fprintf(&b, "\n%s\n", paint(red, v.File.Title))
		for i := range v.File.Rows {
			line := ""
			if n := v.File.Rows[i].Line; n > 0 {
				line = fmt.Sprint(n)
			}
			fmt.Fprintf(&b, "  %5s  %s\n", line, v.File.Rows[i].Texts[0])
		}
		if v.File.More != "" {
			fmt.Fprintf(&b, "  %s\n", v.File.More)
		}
	}
	for i := range v.Mixed {
		m := &v.Mixed[i]
		fmt.Fprintf(&b, "\n%s\n%s\n", paint(red, m.Text), m.Harm)
		for _, p := range append(slices.Clone(m.Pairs), m.More) {
			if p != "" {
				fmt.Fprintf(&b, "  %s\n", p)
			}
		}
	}
	for _, s := range []struct {
		section
		code string
	}{{v.Wrong, red}, {v.Warnings, yellow}} {
		if len(s.Rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n%s\n", paint(s.code, s.Title))
		for i := range s.Rows {
			one := &s.Rows[i]
			fmt.Fprintf(&b, "  %5d  %s  %s\n", one.Line, one.Address, one.ID)
			for _, t := range one.Texts {
				fmt.Fprintf(&b, "         %s\n", t)
			}
		}
		if s.More != "" {
			fmt.Fprintf(&b, "  %s\n", s.More)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", v.Counts)
	_, err := io.WriteString(w, b.String())
	return err
}

//go:embed report.html
var page string

// HTML writes a report as a page of its own, which loads nothing and prints on paper.
func HTML(w io.Writer, r *check.Result, o Options) error {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, newView(r, o))
}

// CSV writes one line for each row of the list, with semicolons, and before them one with the
// verdict "file" for each thing that is wrong with the file itself.
func CSV(w io.Writer, r *check.Result, o Options) error {
	l := o.Language
	out := csv.NewWriter(w)
	out.Comma, out.UseCRLF = ';', true
	if err := out.Write([]string{"line", "address", "account", "directory_id", "agency", "verdict", "text"}); err != nil {
		return err
	}
	if o.Problems != nil {
		for _, p := range o.Problems.List {
			if err := out.Write([]string{fmt.Sprint(p.Line), "", "", "", "", "file", plain(l.Pick(p.Text, p.German))}); err != nil {
				return err
			}
		}
	}
	for i := range r.Rows {
		v := &r.Rows[i]
		one := newRow(i, v, l)
		record := []string{fmt.Sprint(one.Line), string(v.Row.Address), v.Row.Account, one.ID, string(v.Row.Agency), v.Code().String(), strings.Join(one.Texts, "; ")}
		for j := range record {
			record[j] = plain(record[j])
		}
		if err := out.Write(record); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// plain keeps a spreadsheet from taking a text for a formula.
func plain(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// JSON writes the result as it is, and beside it what is wrong with the file.
func JSON(w io.Writer, r *check.Result, o Options) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		*check.Result
		Problems *list.Problems `json:"problems,omitempty"`
	}{r, o.Problems})
}

// Rows returns the rows of a severity in one line each, at most so many, those whose findings explain
// most; less than 0: all.
func Rows(r *check.Result, severity check.Severity, l Language, most int) []string {
	var out []string
	shown, _ := telling(r, severity, most)
	for _, i := range shown {
		one := newRow(i, &r.Rows[i], l)
		out = append(out, fmt.Sprintf("%s %s: %s", l.say("row %d", "Zeile %d", one.Line), one.Address, strings.Join(one.Texts, "; ")))
	}
	return out
}

// Permutations returns a sentence for each way in which rows were mixed.
func Permutations(r *check.Result, l Language, h list.Headers) []string {
	var out []string
	for i := range r.Permutations {
		out = append(out, l.permutation(&r.Permutations[i], &h))
	}
	return out
}
