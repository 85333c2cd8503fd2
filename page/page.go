package page

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/door"
)

//go:embed static
var files embed.FS

// Options are what a Page works with. What isn't said to be optional is required.
type Options struct {
	// Identify returns who has a token now.
	Identify func(token string) (admin.Identity, bool)
	// As returns a client of the API whose calls are made by somebody.
	As func(id admin.Identity) *admin.Client
	// Progress returns a client that may only read, for the progress page.
	Progress func() *admin.Client
	// ProgressKey makes the links of the progress pages; returns an empty one: there are none.
	ProgressKey func() string
	// SignOn is another way to sign in; nil: by token only.
	SignOn SignOn
	// Measures returns what the charts show, as it is now; nil: nothing.
	Measures func() Measures

	Node   string // this one's name
	Secure bool   // the page is reached by https: cookies are sent by nothing else
	Lab    bool   // no real mail is at stake here
	Logger *slog.Logger
}

// SignOn is a way to sign in at somebody else's page.
type SignOn interface {
	// Name is what the button says.
	Name() string
	// ServeHTTP sends the browser there, and takes it back. It calls done once it is certain who
	// it is; done answers the request.
	ServeHTTP(w http.ResponseWriter, r *http.Request, done func(id admin.Identity, ends time.Time))
	// Again returns who has signed on, with the rights that he has now; false if he has none any more.
	Again(id admin.Identity) (admin.Identity, bool)
}

// Page is the web page. Use [New].
type Page struct {
	Options
	mux      *http.ServeMux
	http     *http.Server
	origin   *http.CrossOriginProtection
	sessions *sessions
	history  *history
	views    *views
	files    http.Handler

	watched    watching           // by who is signed in
	strangers  watching           // the progress pages: a thousand of an agency's staff keep no engineer from his
	standings  kept[progressView] // by agency
	recalls    kept[admin.Recall] // by id: other nodes are asked for these
	timetables kept[admin.Timetable]

	halted context.Context
	halt   context.CancelFunc
	parts  sync.WaitGroup
}

// New returns a page that serves nothing yet.
func New(o Options) (*Page, error) {
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, fmt.Errorf("page's files: %w", err)
	}
	v, err := newViews()
	if err != nil {
		return nil, err
	}
	p := &Page{
		Options: o, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(), sessions: newSessions(time.Now),
		history: new(history), views: v, files: http.StripPrefix("/static/", http.FileServerFS(static)),
		watched: watching{most: 500, every: time.Second}, strangers: watching{most: 5000, every: 5 * time.Second},
		standings: kept[progressView]{age: time.Second}, recalls: kept[admin.Recall]{age: 3 * time.Second}, timetables: kept[admin.Timetable]{age: 5 * time.Second},
	}
	p.halted, p.halt = context.WithCancel(context.Background())
	p.http = &http.Server{
		Handler: p, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		WriteTimeout: 5 * time.Minute, // the longest call, a look into mailboxes, has to fit in; live updates set their own
		ErrorLog:     slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		BaseContext:  func(net.Listener) context.Context { return p.halted }, ConnContext: door.Context,
	}
	p.register()
	return p, nil
}

// Serve answers on l, which it closes, until Shutdown; then it returns nil.
func (p *Page) Serve(l net.Listener) error {
	p.parts.Go(p.sample)
	if err := p.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the page at %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown ends all live updates, and waits until ctx ends for the other requests, which are cut
// then.
func (p *Page) Shutdown(ctx context.Context) error {
	p.halt()
	defer p.parts.Wait()
	if err := p.http.Shutdown(ctx); err != nil {
		_ = p.http.Close()
		return fmt.Errorf("end requests of the page: %w", err)
	}
	return nil
}

// policy lets the page load its own files and nothing else, run no script that stands in it,
// and be shown in nobody's frame.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// maxForm bounds what a form may have.
const maxForm = 64 << 10

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	a := &answer{ResponseWriter: w}
	defer func() {
		if e := recover(); e != nil {
			if e == http.ErrAbortHandler {
				panic(e)
			}
			p.Logger.Error("page panicked", "path", r.URL.Path, "error", fmt.Sprint(e), "stack", string(debug.Stack()))
			if a.status == 0 {
				http.Error(a, "internal error; the node's log has the reason", http.StatusInternalServerError)
			}
		}
		path := r.URL.Path
		if strings.HasPrefix(path, progressPath) {
			path = progressPath // the rest is the link's secret
		}
		p.Logger.Debug("page", "method", r.Method, "path", path, "code", a.status, "peer", r.RemoteAddr, "milliseconds", time.Since(began).Milliseconds())
	}()
	h := a.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if p.Secure {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if err := p.origin.Check(r); err != nil {
		http.Error(a, "this form was not sent by this page", http.StatusForbidden)
		return
	}
	r.Body = http.MaxBytesReader(a, r.Body, maxForm)
	p.mux.ServeHTTP(a, r)
}

// answer notes the status.
type answer struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(code int) {
	if a.status == 0 {
		a.status = code
	}
	a.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// register makes all pages known.
func (p *Page) register() {
	p.mux.HandleFunc("GET /static/", func(w http.ResponseWriter, r *http.Request) {
		if !fs.ValidPath(strings.TrimPrefix(r.URL.Path, "/static/")) { // which the file server takes for a fault of its own
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=300")
		p.files.ServeHTTP(w, r)
	})
	p.mux.HandleFunc("GET /signin", p.showSignIn)
	p.mux.HandleFunc("POST /signin", p.signIn)
	p.mux.HandleFunc("POST /signout", p.signOut)
	p.mux.HandleFunc("POST /language", p.setLanguage)
	if p.SignOn != nil {
		p.mux.HandleFunc("GET /signon/", p.signOn)
	}
	p.mux.HandleFunc("GET "+progressPath+"{agency}/{code}", p.showProgress)
	p.mux.HandleFunc("GET "+progressPath+"{agency}/{code}/live", p.liveProgress)

	p.view("/{$}", overview)
	p.view("/agencies/{id}", agency)
	p.view("/operations", operations)
	p.view("/operations/{id}", operationView)
	p.view("/proposals", proposals)
	p.view("/proposals/{id}", proposal)
	p.view("/plan", plan)
	p.mux.HandleFunc("POST /plan/{act}", p.signedIn(p.actOnPlan))
	p.view("/waves/{name}", wave)
	p.mux.HandleFunc("POST /waves/{name}/{act}", p.signedIn(p.actOnWave))
	p.view("/trace", trace)
	p.mux.HandleFunc("POST /trace/locate", p.signedIn(p.locate))
	p.registerActs()
	p.mux.HandleFunc("/", p.signedIn(func(w http.ResponseWriter, r *http.Request, v *visit) {
		p.refuse(w, r, v, http.StatusNotFound, errors.New(r.URL.Path))
	}))
}
