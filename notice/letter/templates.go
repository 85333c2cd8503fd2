package letter

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"mailcutover/notice"
)

//go:embed templates/*.txt
var builtIn embed.FS

// Templates are those of all languages. Use [BuiltIn] or [ReadTemplates].
type Templates struct {
	byLanguage map[notice.Language]*template.Template
}

// Languages are those that there are templates for.
func Languages() []notice.Language { return []notice.Language{notice.English, notice.German} }

// maxTemplate bounds a template's file, maxText what one makes, in bytes.
const (
	maxTemplate = 256 << 10
	maxText     = 1 << 20
)

// BuiltIn returns the program's own templates.
func BuiltIn() *Templates {
	t, err := read(builtIn, "templates/")
	if err != nil {
		panic("letter: " + err.Error()) // a test reads them
	}
	return t
}

// ReadTemplates returns the templates of a directory, in files that are named LANGUAGE.txt;
// of a language that it doesn't have, the program's own. Each must define "subject" and "body",
// and both must be able to write all types of events.
func ReadTemplates(dir string) (*Templates, error) {
	t := BuiltIn()
	found := false
	for _, l := range Languages() {
		name := string(l) + ".txt"
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		one, err := parse(os.DirFS(dir), name, l)
		if err != nil {
			return nil, fmt.Errorf("templates in %s: %w", dir, err)
		}
		t.byLanguage[l] = one
		found = true
	}
	if !found {
		return nil, fmt.Errorf("templates in %s: neither en.txt nor de.txt is there", dir)
	}
	if err := t.Check(); err != nil {
		return nil, fmt.Errorf("templates in %s: %w", dir, err)
	}
	return t, nil
}

func read(in fs.FS, prefix string) (*Templates, error) {
	t := &Templates{byLanguage: make(map[notice.Language]*template.Template)}
	for _, l := range Languages() {
		one, err := parse(in, prefix+string(l)+".txt", l)
		if err != nil {
			return nil, err
		}
		t.byLanguage[l] = one
	}
	return t, nil
}

func parse(in fs.FS, name string, l notice.Language) (*template.Template, error) {
	text, err := fs.ReadFile(in, name)
	if err != nil {
		return nil, err
	}
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("%s: %d bytes: want at most %d", name, len(text), maxTemplate)
	}
	t, err := template.New(name).Option("missingkey=zero").Funcs(functions(l)).Parse(string(text))
	if err != nil {
		return nil, err
	}
	for _, part := range []string{"subject", "body"} {
		if t.Lookup(part) == nil {
			return nil, fmt.Errorf("%s: it doesn't define %q", name, part)
		}
	}
	return t, nil
}

// functions are what templates can call besides text/template's own.
func functions(l notice.Language) template.FuncMap {
	return template.FuncMap{
		"title": func(e Line) string { return e.Event.Title(l) },
		"clock": func(t time.Time) string { return t.Local().Format("15:04:05") },
		"date": func(t time.Time) string {
			if l == notice.German {
				return t.Local().Format("02.01.2006 15:04:05 MST")
			}
			return t.Local().Format("2006-01-02 15:04:05 MST")
		},
		"oneline": notice.OneLine,
	}
}

// Line is one event as templates see it. Every text in it is one line without control
// characters.
type Line struct {
	notice.Event
	Details []Detail // what else it says, by key
	Who     string   // empty: nobody, or it isn't known
	Reason  string
}

// Detail is a datum of an event.
type Detail struct{ Key, Value string }

// View is what a template gets.
type View struct {
	Installation string
	Node         string // that sends
	Channel      string
	Worst        notice.Severity // of all events
	Events       []Line          // in the order of time
	Agencies     []string        // that they are about, each once
	From, To     time.Time       // of the first and the last event
}

func view(l *Letter) View {
	v := View{Installation: l.Installation, Node: l.Node, Channel: l.Channel, Worst: notice.Worst(l.Events)}
	events := slices.Clone(l.Events)
	slices.SortStableFunc(events, func(a, b notice.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range events {
		line := Line{Event: clean(e)}
		line.Who, line.Reason = line.Data["who"], line.Data["reason"]
		for key, value := range line.Data {
			if key != "who" && key != "reason" && value != "" {
				line.Details = append(line.Details, Detail{key, value})
			}
		}
		slices.SortFunc(line.Details, func(a, b Detail) int { return strings.Compare(a.Key, b.Key) })
		v.Events = append(v.Events, line)
		for _, id := range line.Event.Agencies() {
			if !slices.Contains(v.Agencies, id) {
				v.Agencies = append(v.Agencies, id)
			}
		}
	}
	slices.Sort(v.Agencies)
	if n := len(events); n > 0 {
		v.From, v.To = events[0].Time, events[n-1].Time
	}
	return v
}

// clean returns an event whose texts are one line each.
func clean(e notice.Event) notice.Event {
	data := make(map[string]string, len(e.Data))
	for key, value := range e.Data {
		data[notice.OneLine(key)] = notice.OneLine(value)
	}
	e.Data = data
	e.Agency, e.Node, e.Operation, e.Subject, e.Source = notice.OneLine(e.Agency), notice.OneLine(e.Node), notice.OneLine(e.Operation), notice.OneLine(e.Subject), notice.OneLine(e.Source)
	return e
}

// execute writes the subject and the text of a letter.
func (t *Templates) execute(l *Letter) (subject, text string, err error) {
	one := t.byLanguage[l.Language]
	if one == nil {
		return "", "", fmt.Errorf("no templates for the language %q", l.Language)
	}
	v := view(l)
	for part, out := range map[string]*string{"subject": &subject, "body": &text} {
		var b bounded
		if err := one.ExecuteTemplate(&b, part, v); err != nil {
			return "", "", fmt.Errorf("write the %s: %w", part, err)
		}
		*out = strings.TrimSpace(b.String())
	}
	if subject = strings.Join(strings.Fields(notice.OneLine(subject)), " "); subject == "" {
		return "", "", errors.New("the template makes no subject")
	}
	if text == "" {
		return "", "", errors.New("the template makes no text")
	}
	return subject, text + "\n", nil
}

// bounded is a buffer that takes so much and no more.
type bounded struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxText {
		return 0, fmt.Errorf("the text has more than %d bytes", maxText)
	}
	return b.Buffer.Write(p)
}

// Check writes letters about every type of event, alone and all together, in every language.
func (t *Templates) Check() error {
	var all []notice.Event
	for _, about := range notice.Types() {
		all = append(all, sample(about))
	}
	for _, l := range Languages() {
		for i := range all {
			if _, _, err := t.execute(&Letter{Language: l, Installation: "lab", Node: "mx1.example.org", Channel: "ops", Events: all[i : i+1]}); err != nil {
				return fmt.Errorf("%s.txt: %s: %w", l, all[i].Type, err)
			}
		}
		if _, _, err := t.execute(&Letter{Language: l, Installation: "lab", Node: "mx1.example.org", Channel: "ops", Events: all}); err != nil {
			return fmt.Errorf("%s.txt: all types: %w", l, err)
		}
	}
	return nil
}

// sample returns an event of a type with everything that it can say.
func sample(about notice.About) notice.Event {
	e := notice.NewTest("lab", "mx1.example.org", string(about.Type), "Anna Berg", "wave 1", time.Unix(1_800_000_000, 0))
	e.Type, e.Severity, e.Agency, e.Operation = about.Type, about.Severity, "health", "0190c0de"
	for _, key := range about.Data {
		e.Data[key] = key + "-example"
	}
	return e
}

// WriteBuiltIn writes the program's own templates into a directory that exists, as new files,
// and returns their names. Files that are there stay, and are an error.
func WriteBuiltIn(dir string) (names []string, err error) {
	for _, l := range Languages() {
		text, err := builtIn.ReadFile("templates/" + string(l) + ".txt")
		if err != nil {
			return names, fmt.Errorf("write templates: %w", err)
		}
		name := filepath.Join(dir, string(l)+".txt")
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return names, fmt.Errorf("write templates: %w", err)
		}
		_, err = f.Write(text)
		if err = errors.Join(err, f.Close()); err != nil {
			return names, fmt.Errorf("write templates: %w", err)
		}
		names = append(names, name)
	}
	return names, nil
}
