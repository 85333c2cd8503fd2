package admin

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"
)

// maxKeptAnswers is the number of answers kept for calls that come again. expected_epoch
// and the table's own conditions make an older call harmless.
const maxKeptAnswers = 1000

// maxKeyBytes is the longest Idempotency-Key.
const maxKeyBytes = 200

// Folder keeps small files that appear whole or not at all; durable.Folder is one.
type Folder interface {
	Write(name string, write func(io.Writer) error) error
	Open(name string) (io.ReadCloser, error)
	Names() ([]string, error)
	Remove(names ...string) error
}

// kept is a call with an Idempotency-Key, and its answer once it is done. It is a file
// before the call is carried out, so that one during which the node stopped isn't
// carried out again by whoever repeats it.
type kept struct {
	Key    string            `json:"key"`    // with the person
	Digest [sha256.Size]byte `json:"digest"` // of the call
	Time   time.Time         `json:"time"`
	Done   bool              `json:"done"`
	Status int               `json:"status,omitempty"`
	Header http.Header       `json:"header,omitempty"`
	Body   []byte            `json:"body,omitempty"`

	before bool // of a process before this one
}

// name is that of k's file.
func (k *kept) name() string {
	sum := sha256.Sum256([]byte(k.Key))
	return hex.EncodeToString(sum[:]) + ".json"
}

// answers keeps the last calls by person and key.
type answers struct {
	folder Folder
	log    *slog.Logger

	mu    sync.Mutex
	byKey map[string]*kept
	order []string // those that aren't under way, oldest first
}

// newAnswers reads what is in the folder. A file that can't be read is logged, and left.
func newAnswers(folder Folder, log *slog.Logger) *answers {
	x := &answers{folder: folder, log: log, byKey: make(map[string]*kept)}
	names, err := folder.Names()
	if err != nil {
		log.Error("answers to earlier calls can't be listed: such a call that comes again is refused by the agency's epoch only", "error", err)
	}
	var all []*kept
	for _, name := range names {
		k, err := x.read(name)
		if err != nil {
			log.Error("the answer to an earlier call can't be read", "file", name, "error", err)
			continue
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *kept) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Key, b.Key)) })
	for _, k := range all {
		k.before = true
		x.byKey[k.Key] = k
		x.order = append(x.order, k.Key)
	}
	x.forget()
	return x
}

func (x *answers) read(name string) (*kept, error) {
	f, err := x.folder.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	k := new(kept)
	if err := json.NewDecoder(f).Decode(k); err != nil {
		return nil, err
	}
	if k.name() != name {
		return nil, fmt.Errorf("it is the answer to another call")
	}
	return k, nil
}

// write makes k's file. k is nobody else's.
func (x *answers) write(k *kept) error {
	return x.folder.Write(k.name(), func(w io.Writer) error { return json.NewEncoder(w).Encode(k) })
}

// once carries out a call, unless it was carried out under this key before: then the
// first answer comes again. A call that failed is forgotten, so that it may be repeated.
func (s *Server) once(a *answer, r *http.Request, req *request, key string) {
	body, _ := io.ReadAll(r.Body) // from memory, by admit
	r.Body = io.NopCloser(bytes.NewReader(body))
	digest := sha256.Sum256(append([]byte(r.Method+" "+r.URL.RequestURI()+"\n"), body...))
	key = req.caller.person + "\n" + key
	k, first := s.answers.claim(key, digest)
	switch {
	case first:
	case k.Digest != digest:
		writeProblem(a, problem(http.StatusUnprocessableEntity, "take a fresh key for each call", "%s was used for another call", headerIdempotency))
		return
	case !k.Done && k.before:
		writeProblem(a, problem(http.StatusConflict, "look whether it happened; mailcutover audit export has what was begun. Then send it under a fresh key, if it is still wanted", "the node stopped while it carried out this call"))
		return
	case !k.Done:
		writeProblem(a, problem(http.StatusConflict, "wait for its answer", "the same call is under way"))
		return
	default:
		for name, values := range k.Header {
			a.Header()[name] = values
		}
		a.Header().Set("Idempotency-Replayed", "true")
		a.WriteHeader(k.Status)
		_, _ = a.Write(k.Body)
		return
	}
	rec := &recorder{answer: a}
	finished := false
	defer func() { s.answers.settle(k, rec, finished) }() // also after a panic
	if err := s.answers.write(&k); err != nil {
		s.Logger.Error("call refused: that it is under way can't be written", "request", req.id, "error", err)
		writeProblem(rec, problem(http.StatusServiceUnavailable, "see to the disk of the node; nothing was done", "the node can't write down that this call is under way"))
		return
	}
	s.mux.ServeHTTP(rec, r)
	finished = true
}

// claim returns the call of a key; first: it is the caller's to carry out and to settle.
func (x *answers) claim(key string, digest [sha256.Size]byte) (k kept, first bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if k := x.byKey[key]; k != nil {
		return *k, false
	}
	k = kept{Key: key, Digest: digest, Time: time.Now().UTC()}
	pending := k
	x.byKey[key] = &pending
	return k, true
}

// settle keeps the answer to a call that succeeded, and forgets any other.
func (x *answers) settle(k kept, rec *recorder, finished bool) {
	if !finished || rec.status < 200 || rec.status > 299 {
		if err := x.folder.Remove(k.name()); err != nil {
			x.log.Error("a call that failed can't be forgotten: after a restart it is refused under its key", "error", err)
		}
		x.mu.Lock()
		delete(x.byKey, k.Key)
		x.mu.Unlock()
		return
	}
	k.Done, k.Status, k.Body, k.Header = true, rec.status, rec.body.Bytes(), rec.kept
	if err := x.write(&k); err != nil {
		x.log.Error("the answer to a call can't be written: after a restart it is refused under its key", "error", err)
	}
	x.mu.Lock()
	x.byKey[k.Key] = &k
	x.order = append(x.order, k.Key)
	x.mu.Unlock()
	x.forget()
}

// forget drops the oldest answers.
func (x *answers) forget() {
	x.mu.Lock()
	var gone []string
	for len(x.order) > maxKeptAnswers {
		gone = append(gone, x.byKey[x.order[0]].name())
		delete(x.byKey, x.order[0])
		x.order = x.order[1:]
	}
	x.mu.Unlock()
	if len(gone) == 0 {
		return
	}
	if err := x.folder.Remove(gone...); err != nil {
		x.log.Warn("old answers can't be removed", "error", err)
	}
}

// recorder keeps a copy of an answer.
type recorder struct {
	*answer
	kept http.Header
	body bytes.Buffer
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.kept == nil {
		r.kept = http.Header{}
		for _, name := range []string{"Content-Type", "Location"} {
			if v := r.Header().Get(name); v != "" {
				r.kept.Set(name, v)
			}
		}
	}
	r.answer.WriteHeader(status)
}

// Write implements io.Writer.
func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b)
	return r.answer.Write(b)
}
