package page

import (
	"errors"
	"net/http"
	"strings"

	"mailcutover/admin"
	"mailcutover/internal/alarm"
)

// alarms lists what a human has to see.
var alarms = view{name: "alarms", data: alarmsData}

type alarmsView struct {
	Alarms []alarm.Alarm
	Key    string
}

func alarmsData(v *visit) (string, any, error) {
	all, err := v.api.Alarms(v.ctx())
	if err != nil {
		return "", nil, err
	}
	return "Alarms", &alarmsView{all, newKey()}, nil
}

func (p *Page) clearAlarm(w http.ResponseWriter, r *http.Request, v *visit) {
	ctx, ok := once(v)
	if !ok {
		p.refuse(w, r, v, http.StatusUnprocessableEntity, errForm)
		return
	}
	if err := v.api.ClearAlarm(ctx, r.PostFormValue("alarm"), strings.TrimSpace(r.PostFormValue("reason"))); err != nil {
		p.refuse(w, r, v, 0, err)
		return
	}
	http.Redirect(w, r, "/alarms?done=cleared", http.StatusSeeOther)
}

// emergency is what one person did alone, to be confirmed by a second.
var emergency = view{name: "emergency", data: emergencyData}

type emergencyView struct {
	admin.Emergency
	Own bool
	Key string
}

var errNoEmergency = errors.New("there is no such emergency, or it is confirmed")

func emergencyData(v *visit) (string, any, error) {
	all, err := v.api.Emergencies(v.ctx())
	if err != nil {
		return "", nil, err
	}
	for _, e := range all {
		if e.ID == v.r.PathValue("id") {
			return "Emergency", &emergencyView{e, e.Person == v.id.Person, newKey()}, nil
		}
	}
	return "", nil, &admin.Problem{Status: http.StatusNotFound, Title: "Not Found", Detail: errNoEmergency.Error()}
}

func (p *Page) confirmEmergency(w http.ResponseWriter, r *http.Request, v *visit) {
	ctx, ok := once(v)
	if !ok {
		p.refuse(w, r, v, http.StatusUnprocessableEntity, errForm)
		return
	}
	if _, err := v.api.ConfirmEmergency(ctx, r.PathValue("id"), strings.TrimSpace(r.PostFormValue("reason"))); err != nil {
		p.refuse(w, r, v, 0, err)
		return
	}
	http.Redirect(w, r, "/?done=confirmed", http.StatusSeeOther)
}
