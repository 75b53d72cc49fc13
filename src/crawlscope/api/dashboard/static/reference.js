"use strict";
// The description of the API, drawn by Swagger UI.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#reference", deepLinking: true, validatorUrl: null });
