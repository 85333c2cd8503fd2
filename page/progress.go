package page

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"time"

	"mailcutover/admin"
)

const progressPath = "/progress/"

// progressCode is what makes the link of an agency's progress page unguessable.
func progressCode(key, agency string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte("progress page of agency " + agency))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}

// progressLink returns the path of an agency's progress page; empty: there is none.
func (p *Page) progressLink(agency string) string {
	key := p.ProgressKey()
	if key == "" {
		return ""
	}
	return progressPath + url.PathEscape(agency) + "/" + progressCode(key, agency)
}

// progressView is what an agency's staff is told: no name of a person, mailbox or machine.
type progressView struct {
	Agency string
	State  state
	Since  time.Time // of the state; zero: not known
	Closed bool
}

func (p *Page) showProgress(w http.ResponseWriter, r *http.Request) {
	s, ok := p.progress(w, r)
	if ok {
		p.render(w, http.StatusOK, s)
	}
}

func (p *Page) liveProgress(w http.ResponseWriter, r *http.Request) {
	if _, ok := p.progress(w, r); !ok {
		return
	}
	p.stream(w, r, &p.strangers, []string{"standing"}, func() (*shown, error) { return p.progressNow(r) })
}

// progress answers those who don't have the link as if there were no such page.
func (p *Page) progress(w http.ResponseWriter, r *http.Request) (*shown, bool) {
	key, id := p.ProgressKey(), r.PathValue("agency")
	if key == "" || !hmac.Equal([]byte(r.PathValue("code")), []byte(progressCode(key, id))) {
		http.NotFound(w, r)
		return nil, false
	}
	s, err := p.progressNow(r)
	if err != nil {
		p.Logger.Warn("progress page", "agency", id, "error", err)
		p.render(w, http.StatusServiceUnavailable, &shown{Page: p, Language: languageOf(r), Title: id, Template: "progress", Path: r.URL.Path, Data: &progressView{Agency: id, State: stateUnknown}})
		return nil, false
	}
	return s, true
}

func (p *Page) progressNow(r *http.Request) (*shown, error) {
	id := r.PathValue("agency")
	v, err := p.standings.of(r.Context(), id, func() (progressView, error) { return p.standing(r.Context(), id) })
	if err != nil {
		return nil, err
	}
	return &shown{Page: p, Language: languageOf(r), Title: v.Agency, Template: "progress", Path: r.URL.Path, Data: &v, Live: true, Now: time.Now()}, nil
}

// standing asks how an agency stands.
func (p *Page) standing(ctx context.Context, id string) (progressView, error) {
	api := p.Progress()
	a, err := api.Agency(ctx, id)
	if err != nil {
		return progressView{}, err
	}
	v := progressView{Agency: a.ID, State: stateOf(&a), Closed: !a.Open}
	ops, err := api.Operations(ctx, id)
	if err == nil {
		v.read(ops.Operations)
	}
	return v, nil
}

// read takes from the operations since when the agency is where it is. Of a lock it isn't known.
func (v *progressView) read(ops []admin.Operation) {
	for _, op := range ops { // the newest is the last
		switch {
		case !op.Ended && v.Closed && v.State != stateLocked && op.Closed != nil:
			v.Since = *op.Closed
		case op.Step == "done" && !v.Closed && op.Opened != nil:
			v.Since = *op.Opened
		}
	}
}
