package incident

import (
	"archive/zip"
	"bufio"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mailcutover/admin"
	"mailcutover/notice"
)

// Manifest says what an export is, and of what it is made.
type Manifest struct {
	Agency   string    `json:"agency"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Made     time.Time `json:"made"`
	By       string    `json:"by"`
	Reason   string    `json:"reason"`
	Node     string    `json:"node"` // that was asked
	Program  string    `json:"program"`
	Complete bool      `json:"complete"` // nothing is known to be missing
	Missing  []string  `json:"missing"`

	Deliveries admin.Manifest `json:"deliveries"` // of the ledgers, as the node gave them out
	Heads      []string       `json:"audit_heads"`
	Files      []File         `json:"files"`
}

// File is a file of an export.
type File struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ManifestName is the name of the manifest's file.
const ManifestName = "manifest.json"

// Writer writes one export. Use [New], then [Writer.Delivery] for each delivery, then
// [Writer.Finish]; or [Writer.Discard].
type Writer struct {
	path, beside string
	zip          *zip.Writer // nil: a directory
	file         *os.File    // of zip
	tally        *tally
	files        []File

	deliveries *part
	rows       *csv.Writer
}

// New begins an export at path, which must not exist: a zip file if its name ends with .zip,
// else a directory. Only its owner can read it.
func New(path string) (*Writer, error) {
	w := &Writer{path: filepath.Clean(path), tally: newTally()}
	w.beside = w.path + ".partial"
	fail := func(err error) (*Writer, error) { return nil, fmt.Errorf("begin incident export %s: %w", path, err) }
	if _, err := os.Lstat(w.path); err == nil {
		return fail(os.ErrExist)
	}
	var err error
	if strings.EqualFold(filepath.Ext(w.path), ".zip") {
		if w.file, err = os.OpenFile(w.beside, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return fail(err)
		}
		w.zip = zip.NewWriter(w.file)
	} else if err = os.Mkdir(w.beside, 0o700); err != nil {
		return fail(err)
	}
	if w.deliveries, err = w.create("deliveries.csv"); err != nil {
		return nil, errors.Join(err, w.Discard())
	}
	w.rows = csv.NewWriter(w.deliveries)
	if err := w.rows.Write(deliveryColumns); err != nil {
		return nil, errors.Join(err, w.Discard())
	}
	return w, nil
}

// part is a file of an export while it is written.
type part struct {
	*bufio.Writer
	w    *Writer
	name string
	file *os.File // nil: in a zip
	sum  interface{ Sum([]byte) []byte }
	n    int64
	out  io.Writer
}

// create begins a file. The one before has ended.
func (w *Writer) create(name string) (*part, error) {
	p := &part{w: w, name: name}
	var out io.Writer
	var err error
	if w.zip != nil {
		out, err = w.zip.Create(name)
	} else {
		p.file, err = os.OpenFile(filepath.Join(w.beside, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		out = p.file
	}
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	sum := sha256.New()
	p.sum, p.out = sum, io.MultiWriter(out, sum)
	p.Writer = bufio.NewWriterSize(counted{p}, 64<<10)
	return p, nil
}

// counted writes a part's bytes to where they belong.
type counted struct{ p *part }

// Write implements io.Writer.
func (c counted) Write(b []byte) (int, error) {
	n, err := c.p.out.Write(b)
	c.p.n += int64(n)
	return n, err
}

// end ends a file, and notes it for the manifest.
func (p *part) end() error {
	err := p.Flush()
	if p.file != nil {
		err = errors.Join(err, p.file.Sync(), p.file.Close())
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", p.name, err)
	}
	p.w.files = append(p.w.files, File{Name: p.name, Bytes: p.n, SHA256: hex.EncodeToString(p.sum.Sum(nil))})
	return nil
}

var deliveryColumns = []string{"time", "answered", "node", "transaction", "agency", "mailbox", "epoch", "mapping", "from", "recipient", "message_id", "size", "platform", "host", "result", "code", "answer"}

// Delivery adds a delivery; they come in the order of time.
func (w *Writer) Delivery(d *admin.Delivery) error {
	w.tally.add(d)
	answered, code := "", ""
	if d.Answered != nil {
		answered = utc(*d.Answered)
	}
	if d.Code != 0 {
		code = strconv.Itoa(d.Code)
	}
	return w.rows.Write(cells(utc(d.Time), answered, d.Node, d.Transaction, d.Agency, d.Mailbox, d.Epoch, d.Mapping, d.From, d.Recipient, d.MessageID,
		strconv.FormatInt(d.Size, 10), d.Platform, d.Host, d.Result, code, d.Answer))
}

// Finish writes all else, and gives the export its name. deliveries is the manifest of those
// that were added. After an error nothing is left.
func (w *Writer) Finish(m *Material, deliveries *admin.Manifest) (Manifest, error) {
	man, err := w.finish(m, deliveries)
	if err != nil {
		return man, errors.Join(fmt.Errorf("write incident export %s: %w", w.path, err), w.Discard())
	}
	return man, nil
}

func (w *Writer) finish(m *Material, deliveries *admin.Manifest) (man Manifest, err error) {
	w.rows.Flush()
	if err := errors.Join(w.rows.Error(), w.deliveries.end()); err != nil {
		return man, err
	}
	r := w.report(m, deliveries)
	for _, write := range []func() error{
		func() error { return w.json("timeline.json", r.TimeLine) },
		func() error { return w.timeLine(r.TimeLine) },
		func() error { return w.mailboxes(r.Boxes) },
		func() error { return w.correspondents(r.Senders) },
		func() error { return w.ways(r.Ways) },
		func() error { return w.json("operations.json", r.Operations) },
		func() error { return w.json("lists.json", m.Lists.Lists) },
		func() error { return w.json("recalls.json", m.Recalls.Recalls) },
		func() error { return w.json("findings.json", m.Findings) },
		func() error { return w.findings(m.Findings) },
		func() error { return w.json("audit.json", m.Records) },
		func() error { return w.json("agency.json", m.Agency) },
		func() error { return w.summary("summary.en.html", notice.English, r) },
		func() error { return w.summary("summary.de.html", notice.German, r) },
	} {
		if err := write(); err != nil {
			return man, err
		}
	}
	man = Manifest{
		Agency: m.Agency.ID, From: m.From, To: m.To, Made: m.Made, By: m.By, Reason: m.Reason, Node: m.Node, Program: m.Program,
		Complete: len(r.Missing) == 0, Missing: append([]string{}, r.Missing...), Deliveries: *deliveries, Heads: []string{}, Files: w.files,
	}
	for _, n := range m.Records.Nodes {
		man.Heads = append(man.Heads, n.Head)
	}
	if err := w.json(ManifestName, man); err != nil {
		return man, err
	}
	man.Files = w.files[:len(w.files)-1]
	return man, w.publish()
}

// publish ends what was written, and gives it its name.
func (w *Writer) publish() error {
	if w.zip != nil {
		err := errors.Join(w.zip.Close(), w.file.Sync())
		if err = errors.Join(err, w.file.Close()); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(w.path); err == nil {
		return fmt.Errorf("%s: %w", w.path, os.ErrExist)
	}
	return os.Rename(w.beside, w.path)
}

// Discard removes what was written.
func (w *Writer) Discard() error {
	if w.deliveries != nil && w.deliveries.file != nil {
		_ = w.deliveries.file.Close() // it may be closed already
	}
	if w.file != nil {
		_ = w.file.Close() // it may be closed already
	}
	return os.RemoveAll(w.beside)
}

func (w *Writer) json(name string, v any) error {
	p, err := w.create(name)
	if err != nil {
		return err
	}
	e := json.NewEncoder(p)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return p.end()
}

// table writes a file of CSV.
func (w *Writer) table(name string, columns []string, rows func(yield func(cells []string) error) error) error {
	p, err := w.create(name)
	if err != nil {
		return err
	}
	out := csv.NewWriter(p)
	if err := errors.Join(out.Write(columns), rows(out.Write)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	out.Flush()
	return errors.Join(out.Error(), p.end())
}

func (w *Writer) timeLine(all []Moment) error {
	return w.table("timeline.csv", []string{"time", "node", "who", "what", "about", "text", "names the agency"}, func(yield func([]string) error) error {
		for _, m := range all {
			if err := yield(cells(utc(m.Time), m.Node, m.Who, m.What, m.About, m.Text, yesNo(m.Ours))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *Writer) mailboxes(all []Box) error {
	return w.table("mailboxes.csv", []string{"directory_id", "addresses", "messages", "bytes", "platforms", "first", "last", "findings"}, func(yield func([]string) error) error {
		for _, b := range all {
			if err := yield(cells(b.Mailbox, strings.Join(b.Addresses, " "), strconv.Itoa(b.Messages), strconv.FormatInt(b.Bytes, 10), strings.Join(b.Platforms, " "), utc(b.First), utc(b.Last), strconv.Itoa(b.Findings))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *Writer) correspondents(all []Correspondent) error {
	return w.table("correspondents.csv", []string{"from", "messages", "mailboxes", "first", "last"}, func(yield func([]string) error) error {
		for _, s := range all {
			if err := yield(cells(s.Address, strconv.Itoa(s.Messages), strconv.Itoa(s.Boxes), utc(s.First), utc(s.Last))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *Writer) ways(all []Way) error {
	return w.table("mappings.csv", []string{"mapping", "epoch", "platform", "result", "messages", "first", "last"}, func(yield func([]string) error) error {
		for _, s := range all {
			if err := yield(cells(s.Mapping, s.Epoch, s.Platform, s.Result, strconv.Itoa(s.Messages), utc(s.First), utc(s.Last))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *Writer) findings(all []admin.Finding) error {
	return w.table("findings.csv", []string{"id", "kind", "state", "mailbox", "address", "owner", "owner_address", "messages", "sure", "first", "seen", "person", "reason"}, func(yield func([]string) error) error {
		for _, f := range all {
			if err := yield(cells(f.ID, f.Kind, f.State, f.Mailbox, f.Address, f.Owner, f.OwnerAddress, strconv.Itoa(f.Messages), strconv.Itoa(f.Sure), utc(f.First), utc(f.Seen), f.Person, f.Reason)); err != nil {
				return err
			}
		}
		return nil
	})
}

// cells makes texts what they are in CSV: one line, and never a formula.
func cells(all ...string) []string {
	for i, cell := range all {
		if cell = notice.OneLine(cell); cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
			cell = "'" + cell
		}
		all[i] = cell
	}
	return all
}

func utc(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
