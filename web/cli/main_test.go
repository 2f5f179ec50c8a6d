package cli

import (
	"testing"

	"tollgate/models"
	"tollgate/models/modelstest"
)

func TestMain(m *testing.M) { modelstest.Main(m, models.Open) }
