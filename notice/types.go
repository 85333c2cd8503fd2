package notice

import (
	"slices"
	"strings"
)

// Type says what happened.
type Type string

// The types of events.
const (
	AgencyAdded     Type = "agency.added"
	AgencyClosed    Type = "agency.closed"
	AgencyOpened    Type = "agency.opened"
	AgencyPhase     Type = "agency.phase"
	AgencyLocked    Type = "agency.locked"
	AgencyUnlocked  Type = "agency.unlocked"
	AgencyArmed     Type = "agency.armed"
	AgencySettled   Type = "agency.settled"
	AgencyFinalised Type = "agency.finalised"
	AgencyMapping   Type = "agency.mapping"
	AgencyFrozen    Type = "agency.frozen"
	AgencyLifted    Type = "agency.lifted"

	EmergencyBegun     Type = "emergency.begun"
	EmergencyConfirmed Type = "emergency.confirmed"

	ProposalMade      Type = "proposal.made"
	ProposalApproved  Type = "proposal.approved"
	ProposalUsed      Type = "proposal.used"
	ProposalWithdrawn Type = "proposal.withdrawn"
	ProposalVoid      Type = "proposal.void"
	ProposalExpired   Type = "proposal.expired"

	OperationStarted Type = "operation.started"
	OperationStep    Type = "operation.step"
	OperationWaits   Type = "operation.waits"
	OperationUndo    Type = "operation.undo-failed"
	OperationDone    Type = "operation.done"
	OperationAborted Type = "operation.aborted"
	OperationRefused Type = "operation.refused"

	ListProposed   Type = "list.proposed"
	ListActive     Type = "list.active"
	ListWithdrawn  Type = "list.withdrawn"
	DirectoryDrift Type = "directory.drift"

	RecallBegun    Type = "recall.begun"
	RecallShare    Type = "recall.share"
	RecallEnded    Type = "recall.ended"
	RecallAccepted Type = "recall.accepted"

	VerifyBegun   Type = "verify.begun"
	VerifyEnded   Type = "verify.ended"
	VerifyFound   Type = "verify.found"
	VerifyTrouble Type = "verify.trouble"

	NodeJoined   Type = "node.joined"
	NodeDraining Type = "node.draining"
	NodeReturned Type = "node.returned"
	NodeFenced   Type = "node.fenced"
	NodeEvicted  Type = "node.evicted"
	NodeStarted  Type = "node.started"
	NodeStopped  Type = "node.stopped"
	NodeMissing  Type = "node.missing"
	NodeSeen     Type = "node.seen"

	PlanStopped Type = "plan.stopped"
	PlanLifted  Type = "plan.lifted"

	TableGap Type = "table.gap"

	AlarmRaised  Type = "alarm.raised"
	AlarmCleared Type = "alarm.cleared"

	Test Type = "notice.test"
)

// Severity says how much an event wants people.
type Severity string

const (
	Info    Severity = "info"    // goes its way
	Warning Severity = "warning" // should be known
	Alert   Severity = "alert"   // somebody has to look
)

// rank orders severities, the worst highest.
func (s Severity) rank() int { return slices.Index([]Severity{Info, Warning, Alert}, s) }

// Worst returns the worst severity of some events; Info of none.
func Worst(events []Event) Severity {
	worst := Info
	for i := range events {
		if events[i].Severity.rank() > worst.rank() {
			worst = events[i].Severity
		}
	}
	return worst
}

// About is what there is to know of a type.
type About struct {
	Type     Type
	Severity Severity
	English  string // a line for people; words in braces are attributes of the event, or of its data
	German   string
	Data     []string // keys that its data can have
}

var (
	agencyData    = []string{"phase", "platform", "open", "epoch", "was", "who", "reason"}
	operationData = []string{"kind", "agencies", "step", "runner", "emergency", "error", "closed_seconds", "waits_for", "canaries_failed", "who", "reason"}
	proposalData  = []string{"proposal", "kind", "approvals", "needed", "expires", "why", "who", "reason"}
	listData      = []string{"list", "rows", "digest", "who", "reason"}
	recallData    = []string{"recall", "kind", "from", "to", "delivered", "back", "not_back", "mailboxes", "aside", "who", "reason"}
	verifyData    = []string{"mode", "cause", "mailboxes", "compared", "failed", "differ", "crossed", "foreign", "clash", "possible", "missing", "error", "who", "reason"}
	nodeData      = []string{"instance", "build", "who", "reason"}
)

// types is the list of all types, in the order of the document.
var types = []About{
	{AgencyAdded, Info, "agency {agency} was added", "Behörde {agency} wurde angelegt", agencyData},
	{AgencyClosed, Warning, "agency {agency} is closed ({phase})", "Behörde {agency} ist geschlossen ({phase})", agencyData},
	{AgencyOpened, Warning, "agency {agency} is open on {platform}", "Behörde {agency} ist offen auf {platform}", agencyData},
	{AgencyPhase, Info, "agency {agency} went from phase {was} to {phase}", "Behörde {agency} ging von Phase {was} nach {phase}", agencyData},
	{AgencyLocked, Alert, "agency {agency} is locked", "Behörde {agency} ist gesperrt", agencyData},
	{AgencyUnlocked, Warning, "agency {agency} is no longer locked", "Behörde {agency} ist nicht mehr gesperrt", agencyData},
	{AgencyArmed, Info, "agency {agency} is armed", "Behörde {agency} ist scharfgestellt", agencyData},
	{AgencySettled, Info, "agency {agency} is settled", "Behörde {agency} ist beruhigt", agencyData},
	{AgencyFinalised, Warning, "agency {agency} is finalised: the way back has ended", "Behörde {agency} ist abgeschlossen: Der Rückweg ist zu Ende", agencyData},
	{AgencyMapping, Info, "agency {agency} has another mapping", "Behörde {agency} hat eine andere Zuordnung", append([]string{"mapping"}, agencyData...)},
	{AgencyFrozen, Warning, "{agency|all agencies}: no operation may begin (freeze)", "{agency|alle Behörden}: Keine Operation darf beginnen (eingefroren)", []string{"who", "reason"}},
	{AgencyLifted, Info, "{agency|all agencies}: operations may begin again", "{agency|alle Behörden}: Operationen dürfen wieder beginnen", []string{"who", "reason"}},

	{EmergencyBegun, Alert, "emergency {emergency} of {agency|node {node}} waits for a second person", "Notfallmaßnahme {emergency} ({agency|Knoten {node}}) wartet auf eine zweite Person", []string{"emergency", "who", "reason"}},
	{EmergencyConfirmed, Info, "emergency {emergency} of {agency|node {node}} is confirmed", "Notfallmaßnahme {emergency} ({agency|Knoten {node}}) ist bestätigt", []string{"emergency", "who", "reason"}},

	{ProposalMade, Warning, "proposal {proposal}: {kind} of {agency|everything} waits for approval", "Vorschlag {proposal}: {kind} von {agency|allem} wartet auf Freigabe", proposalData},
	{ProposalApproved, Info, "proposal {proposal}: {kind} of {agency|everything} has {approvals} of {needed} approvals", "Vorschlag {proposal}: {kind} von {agency|allem} hat {approvals} von {needed} Freigaben", proposalData},
	{ProposalUsed, Info, "proposal {proposal}: {kind} of {agency|everything} was used", "Vorschlag {proposal}: {kind} von {agency|allem} wurde ausgeführt", proposalData},
	{ProposalWithdrawn, Info, "proposal {proposal}: {kind} of {agency|everything} was withdrawn", "Vorschlag {proposal}: {kind} von {agency|allem} wurde zurückgezogen", proposalData},
	{ProposalVoid, Warning, "proposal {proposal}: {kind} of {agency|everything} is void: {why}", "Vorschlag {proposal}: {kind} von {agency|allem} ist hinfällig: {why}", proposalData},
	{ProposalExpired, Warning, "proposal {proposal}: {kind} of {agency|everything} was not used in time", "Vorschlag {proposal}: {kind} von {agency|allem} wurde nicht rechtzeitig ausgeführt", proposalData},

	{OperationStarted, Warning, "{kind} of agency {agency} has started", "{kind} von Behörde {agency} hat begonnen", operationData},
	{OperationStep, Info, "{kind} of agency {agency} is at {step}", "{kind} von Behörde {agency} ist bei {step}", operationData},
	{OperationWaits, Alert, "{kind} of agency {agency} waits for people: {waits_for}", "{kind} von Behörde {agency} wartet auf Menschen: {waits_for}", operationData},
	{OperationUndo, Alert, "{kind} of agency {agency}: people have to undo {waits_for}", "{kind} von Behörde {agency}: Menschen müssen {waits_for} rückgängig machen", operationData},
	{OperationDone, Warning, "{kind} of agency {agency} is done", "{kind} von Behörde {agency} ist fertig", operationData},
	{OperationAborted, Alert, "{kind} of agency {agency} was aborted: {error|no reason is known}", "{kind} von Behörde {agency} wurde abgebrochen: {error|kein Grund bekannt}", operationData},
	{OperationRefused, Alert, "{kind} of agency {agency} was refused: {error|no reason is known}", "{kind} von Behörde {agency} wurde abgelehnt: {error|kein Grund bekannt}", operationData},

	{ListProposed, Info, "list {list} of agency {agency} is proposed", "Liste {list} von Behörde {agency} ist vorgeschlagen", listData},
	{ListActive, Warning, "list {list} of agency {agency} is in force", "Liste {list} von Behörde {agency} ist in Kraft", listData},
	{ListWithdrawn, Info, "list {list} of agency {agency} is withdrawn", "Liste {list} von Behörde {agency} ist zurückgezogen", listData},
	{DirectoryDrift, Warning, "the directory differs from the lists in force of {agency|some agency}", "Das Verzeichnis weicht von den geltenden Listen von {agency|einer Behörde} ab", []string{"alarm", "text", "since"}},

	{RecallBegun, Info, "{kind} of agency {agency} brings mail from {from} to {to}", "{kind} von Behörde {agency} bringt Mail von {from} nach {to}", recallData},
	{RecallShare, Info, "{kind} of agency {agency}: node {node} has brought its share, {not_back} not back", "{kind} von Behörde {agency}: Knoten {node} hat seinen Anteil gebracht, {not_back} nicht zurück", recallData},
	{RecallEnded, Warning, "{kind} of agency {agency} was ended", "{kind} von Behörde {agency} wurde beendet", recallData},
	{RecallAccepted, Info, "{kind} of agency {agency}: what isn't back was accepted", "{kind} von Behörde {agency}: Was nicht zurück ist, wurde hingenommen", recallData},

	{VerifyBegun, Info, "mailboxes of agency {agency} are being compared", "Postfächer von Behörde {agency} werden verglichen", verifyData},
	{VerifyEnded, Info, "mailboxes of agency {agency} were compared: {compared} of {mailboxes}", "Postfächer von Behörde {agency} wurden verglichen: {compared} von {mailboxes}", verifyData},
	{VerifyFound, Alert, "mailboxes of agency {agency}: content in the wrong place ({crossed|0} crossed, {foreign|0} foreign, {clash|0} clashes)", "Postfächer von Behörde {agency}: Inhalt am falschen Ort ({crossed|0} vertauscht, {foreign|0} fremd, {clash|0} widersprüchlich)", verifyData},
	{VerifyTrouble, Warning, "mailboxes of agency {agency} could not be compared: {error}", "Postfächer von Behörde {agency} konnten nicht verglichen werden: {error}", verifyData},

	{NodeJoined, Info, "node {node} has joined", "Knoten {node} ist beigetreten", nodeData},
	{NodeDraining, Warning, "node {node} takes no new work", "Knoten {node} nimmt keine neue Arbeit an", nodeData},
	{NodeReturned, Info, "node {node} takes work again", "Knoten {node} nimmt wieder Arbeit an", nodeData},
	{NodeFenced, Alert, "node {node} was said to be off", "Knoten {node} wurde für ausgeschaltet erklärt", nodeData},
	{NodeEvicted, Alert, "node {node} is evicted", "Knoten {node} ist ausgeschlossen", nodeData},
	{NodeStarted, Info, "node {node} has started", "Knoten {node} ist gestartet", nodeData},
	{NodeStopped, Warning, "node {node} has stopped in order", "Knoten {node} wurde ordentlich beendet", nodeData},
	{NodeMissing, Alert, "node {node} is missing: it neither answers the table nor has it stopped in order", "Knoten {node} fehlt: Er meldet sich nicht bei der Tabelle und wurde nicht ordentlich beendet", nodeData},
	{NodeSeen, Info, "node {node} is there again", "Knoten {node} ist wieder da", nodeData},

	{PlanStopped, Alert, "the plan is stopped: no further agency begins", "Der Plan ist angehalten: Keine weitere Behörde beginnt", []string{"who", "reason"}},
	{PlanLifted, Warning, "the plan goes on", "Der Plan geht weiter", []string{"who", "reason"}},

	{TableGap, Warning, "changes of the table were missed: what follows was told from its state", "Änderungen der Tabelle wurden versäumt: Das Folgende wurde aus ihrem Stand gemeldet", []string{"why", "from", "to"}},

	{AlarmRaised, Alert, "alarm on node {node}: {text}", "Alarm auf Knoten {node}: {text}", []string{"alarm", "text", "since"}},
	{AlarmCleared, Info, "alarm on node {node} is over: {text}", "Alarm auf Knoten {node} ist vorbei: {text}", []string{"alarm", "text", "since"}},

	{Test, Info, "a test: nothing has happened", "Ein Test: Es ist nichts geschehen", []string{"who", "reason"}},
}

// Types returns all types, in the order of the document.
func Types() []About { return slices.Clone(types) }

func (t Type) about() *About {
	if i := slices.IndexFunc(types, func(a About) bool { return a.Type == t }); i >= 0 {
		return &types[i]
	}
	return &About{Type: t, Severity: Info, English: string(t), German: string(t)}
}

// Language is one in which people are told.
type Language string

const (
	English Language = "en"
	German  Language = "de"
)

// Title returns what an event says in one line of a language, without control characters.
func (e *Event) Title(l Language) string {
	a := e.Type.about()
	pattern := a.English
	if l == German {
		pattern = a.German
	}
	return strings.Join(strings.Fields(OneLine(fill(pattern, e, l))), " ")
}

// fill puts an event's values in the place of names in braces. {name|else} stands for else
// where there is no value; else may itself have a name in braces.
func fill(pattern string, e *Event, l Language) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(pattern, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		end, depth := 0, 1
		for end < len(rest) && depth > 0 {
			switch rest[end] {
			case '{':
				depth++
			case '}':
				depth--
			}
			end++
		}
		name, other, _ := strings.Cut(rest[:end-1], "|")
		if value := e.value(name); value != "" {
			b.WriteString(word(value, name, l))
		} else {
			b.WriteString(fill(other, e, l))
		}
		pattern = rest[end:]
	}
}

func (e *Event) value(name string) string {
	switch name {
	case "agency":
		return e.Agency
	case "node":
		return e.Node
	case "operation":
		return e.Operation
	}
	return e.Data[name]
}

// germanWords are the words of kinds that stand in lines for people.
var germanWords = map[string]string{
	"cutover": "Umschaltung", "rollback": "Rückkehr", "remap": "Neuzuordnung", "unlock": "Entsperrung", "finalise": "Abschluss", "list": "Liste",
	"retire": "Stilllegung", "evict": "Ausschluss", "reconcile": "Abgleich", "publish": "Öffnen", "recall": "Rückholung", "sweep": "Nachholung",
}

func word(value, name string, l Language) string {
	if l == German && name == "kind" && germanWords[value] != "" {
		return germanWords[value]
	}
	return value
}

// OneLine returns s with all control characters, line ends included, as spaces, so that
// it can neither end a header nor steer a terminal.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0x202e || r == 0x202d || r >= 0x2066 && r <= 0x2069 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
