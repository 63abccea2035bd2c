"""`make deploy-check`: hold every deployment artefact against its rules, offline."""
