package views

import (
	"net/url"
	"time"

	"tollgate/models"
	"tollgate/views/ui"
)

// Activity is the page that lists a person's events in one billing period.
type Activity struct {
	Frame     ui.Frame
	Catalogue *models.Catalogue
	// Path is the page's path. Name and Email are the person's; both are empty for the viewer's own
	// events.
	Path        string
	Name, Email string
	// Back is the page about the person.
	Back string
	// Selected is the text of the parameter period; empty for the current billing period.
	Selected string
	Page     Widget[models.ActivityPage]
	// Continued means that this is not the first part of the list.
	Continued bool
	// Operator is nil except for the operator, who can void events.
	Operator *OpsActivity
}

// title is the page's title.
func (d Activity) title() string {
	if d.Email == "" {
		return "Activity"
	}
	return "Activity of " + displayName(d.Name, d.Email)
}

// section is the page's entry in the navigation, if it has one.
func (d Activity) section() string {
	if d.Operator != nil {
		return "/ops"
	}
	return ""
}

// url returns the address of a part of the list.
func (d Activity) url(path, cursor string) string {
	query := url.Values{}
	if d.Selected != "" {
		query.Set("period", d.Selected)
	}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// overage returns an event's overage: "2 ($0.60)"; "0" without any.
func (d Activity) overage(e models.ActivityEvent) string {
	return eventOverage(d.Catalogue, e.OverageQuantity, e.OverageCents)
}

func eventOverage(c *models.Catalogue, units, cents int64) string {
	if units == 0 {
		return "0"
	}
	return models.FormatCount(units) + " (" + c.FormatMoney(cents) + ")"
}

// deletedText says which events of a period are missing.
func deletedText(before time.Time) string {
	return "Events recorded before " + models.FormatReset(before) + " may already have been deleted. All totals still include them."
}

// voidedText says when and why an event was reversed.
func voidedText(e models.ActivityEvent) string {
	text := "Voided " + models.FormatReset(*e.VoidedAt)
	if e.VoidReason != nil && *e.VoidReason != "" {
		text += ": " + *e.VoidReason
	}
	return text
}
