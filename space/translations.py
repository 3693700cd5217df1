"""Every text of the demo by its key, once for each language."""

from __future__ import annotations

__all__ = ["ENGLISH", "GERMAN", "SPANISH"]


ENGLISH = {
    "lead": "A face photo in, a stylized portrait out. No account, and no GPU needed.",
    "photo": "Your photo",
    "photo_alt": "The photo to stylize",
    "people": "Or try one of these people, who do not exist",
    "style": "Style",
    "consent": (
        "Only use photos of people who agree to it. Photos are worked on by this server alone, are "
        "never shown to other visitors, train nothing, and are deleted within the hour."
    ),
    "faces": "Faces found: click one to leave it out or take it back",
    "faces_alt": "The photo with a numbered box around every face",
    "faces_chosen": "Faces to stylize",
    "tab_stylize": "Stylize",
    "tab_variations": "Variations",
    "tab_reference": "Reference",
    "tab_compare": "Compare",
    "result": "Before and after: drag the handle",
    "view": "Show",
    "portrait": "Portrait",
    "full": "Full photo",
    "download": "Download PNG",
    "strength": "Strength",
    "strength_info": "0 is the photo drawn anew, 1 the full style",
    "keep_color": "Keep my colours",
    "keep_color_info": "How much of the photo's own colours comes back",
    "psi": "Character",
    "psi_info": "psi: lower is nearer to the average face, with fewer slips",
    "refine": "Refine the likeness",
    "refine_info": "Steps of optimisation; some seconds for every ten",
    "reset": "Reset the sliders",
    "again": "The same in Python, in a shell or over HTTP",
    "code_python": "Python",
    "code_shell": "Shell",
    "code_http": "HTTP",
    "level": "What may change",
    "level_3": "Features, hair and colours (3)",
    "level_6": "Hair, clothes and colours (6)",
    "level_9": "Colours (9)",
    "level_12": "Fine colours (12)",
    "seed": "Seed",
    "surprise": "Surprise me",
    "draw": "Draw eight",
    "variations": "Pick one to go on with it",
    "variations_hint": (
        "One photo, eight looks. Press *Surprise me*, then pick one: the sliders below change it "
        "alone."
    ),
    "picked": "Picked: seed {seed}. The sliders now change this one.",
    "reference": "Reference picture",
    "reference_alt": "The picture whose look is taken over",
    "references": "Or follow one of these",
    "whole": "The reference is a cropped portrait already: look for no face in it",
    "alpha": "Share of the reference",
    "follow": "Follow the reference",
    "stop": "Stop",
    "reference_hint": (
        "A new reference is studied once, which takes half a minute on a CPU; after that it is kept "
        "and the sliders answer at once. The examples have been studied already."
    ),
    "studying": "Studying the reference",
    "stopped": (
        "Stopped after {steps} steps: this is the best so far. Follow the reference again to go on "
        "from the start."
    ),
    "no_reference": "Add a reference picture, or pick one of the examples.",
    "compare": "Compare the methods",
    "compare_hint": (
        "Your photo, cut out once, by every method that can run on this machine; each with what it "
        "takes and how near the portrait stays to the photo."
    ),
    "pair": "Beside the photo",
    "table_png": "Download as PNG",
    "table_json": "Download as JSON",
    "working": "Working",
    "looking": "Looking for faces",
    "no_photo": "Add a photo first: upload one, take one, or paste one.",
    "no_faces_chosen": "No face is chosen. Take one back to see it stylized.",
    "done": "{faces} in {seconds:.1f} s · {style}",
    "one_face": "1 face",
    "n_faces": "{count} faces",
    "face": "Face {number}",
}

GERMAN = {
    "lead": "Ein Foto hinein, ein gezeichnetes Porträt heraus. Ohne Konto und ohne Grafikkarte.",
    "photo": "Ihr Foto",
    "photo_alt": "Das Foto, das gezeichnet wird",
    "people": "Oder jemand von diesen Menschen, die es nicht gibt",
    "style": "Stil",
    "consent": (
        "Nur Fotos von Menschen verwenden, die einverstanden sind. Fotos verarbeitet allein dieser "
        "Server; andere sehen sie nie, nichts wird damit trainiert, und nach höchstens einer Stunde "
        "sind sie gelöscht."
    ),
    "faces": "Gefundene Gesichter: anklicken, um eines auszulassen oder wieder zu nehmen",
    "faces_alt": "Das Foto mit einem nummerierten Rahmen um jedes Gesicht",
    "faces_chosen": "Welche Gesichter",
    "tab_stylize": "Zeichnen",
    "tab_variations": "Varianten",
    "tab_reference": "Vorbild",
    "tab_compare": "Vergleich",
    "result": "Vorher und nachher: am Griff ziehen",
    "view": "Zeigen",
    "portrait": "Porträt",
    "full": "Ganzes Foto",
    "download": "PNG herunterladen",
    "strength": "Stärke",
    "strength_info": "0 zeichnet das Foto nach, 1 ist der volle Stil",
    "keep_color": "Meine Farben behalten",
    "keep_color_info": "Wie viel von den Farben des Fotos zurückkommt",
    "psi": "Eigenart",
    "psi_info": "psi: kleiner ist näher am Durchschnittsgesicht, mit weniger Fehlern",
    "refine": "Ähnlichkeit verfeinern",
    "refine_info": "Schritte der Optimierung; einige Sekunden für je zehn",
    "reset": "Regler zurücksetzen",
    "again": "Dasselbe in Python, in der Shell oder über HTTP",
    "code_python": "Python",
    "code_shell": "Shell",
    "code_http": "HTTP",
    "level": "Was sich ändern darf",
    "level_3": "Züge, Haar und Farben (3)",
    "level_6": "Haar, Kleidung und Farben (6)",
    "level_9": "Farben (9)",
    "level_12": "Feine Farben (12)",
    "seed": "Startzahl",
    "surprise": "Überrasch mich",
    "draw": "Acht zeichnen",
    "variations": "Eine auswählen und mit ihr weitermachen",
    "variations_hint": (
        "Ein Foto, acht Ansichten. *Überrasch mich* drücken und eine auswählen: die Regler darunter "
        "ändern dann nur sie."
    ),
    "picked": "Ausgewählt: Startzahl {seed}. Die Regler ändern jetzt dieses Bild.",
    "reference": "Vorbild",
    "reference_alt": "Das Bild, dessen Art übernommen wird",
    "references": "Oder eines von diesen",
    "whole": "Das Vorbild ist schon ein zugeschnittenes Porträt: kein Gesicht darin suchen",
    "alpha": "Anteil des Vorbilds",
    "follow": "Dem Vorbild folgen",
    "stop": "Anhalten",
    "reference_hint": (
        "Ein neues Vorbild wird einmal studiert, auf einem Prozessor etwa eine halbe Minute; danach "
        "bleibt es, und die Regler antworten sofort. Die Beispiele sind schon studiert."
    ),
    "studying": "Das Vorbild wird studiert",
    "stopped": (
        "Nach {steps} Schritten angehalten: das Beste bis hierher. Noch einmal folgen beginnt von "
        "vorn."
    ),
    "no_reference": "Ein Vorbild hinzufügen oder eines der Beispiele wählen.",
    "compare": "Verfahren vergleichen",
    "compare_hint": (
        "Ihr Foto, einmal ausgeschnitten, von jedem Verfahren, das hier laufen kann; mit seinem "
        "Aufwand und der Nähe des Porträts zum Foto."
    ),
    "pair": "Neben dem Foto",
    "table_png": "Als PNG herunterladen",
    "table_json": "Als JSON herunterladen",
    "working": "In Arbeit",
    "looking": "Gesichter werden gesucht",
    "no_photo": "Zuerst ein Foto hinzufügen: hochladen, aufnehmen oder einfügen.",
    "no_faces_chosen": "Kein Gesicht ist gewählt. Nehmen Sie eines wieder hinzu.",
    "done": "{faces} in {seconds:.1f} s · {style}",
    "one_face": "1 Gesicht",
    "n_faces": "{count} Gesichter",
    "face": "Gesicht {number}",
    "NoFaceError": (
        "Kein Gesicht gefunden. Nehmen Sie ein Foto, auf dem das Gesicht aufrecht, scharf und "
        "unverdeckt ist."
    ),
    "FaceTooSmallError": (
        "Das Gesicht ist zu klein. 200 Pixel und mehr sehen gut aus; nehmen Sie ein größeres Foto."
    ),
    "NotAnImageError": (
        "Diese Datei ist kein lesbares Bild. Nehmen Sie JPEG, PNG, WebP, AVIF, TIFF, BMP oder GIF."
    ),
    "ImageTooLargeError": "Dieses Bild hat zu viele Pixel. Verkleinern Sie es zuerst.",
    "ImageTooSmallError": (
        "Dieses Bild hat zu wenige Pixel für ein Gesicht. Nehmen Sie ein größeres."
    ),
}

SPANISH = {
    "lead": "Entra una foto, sale un retrato dibujado. Sin cuenta y sin tarjeta gráfica.",
    "photo": "Tu foto",
    "photo_alt": "La foto que se dibuja",
    "people": "O prueba con una de estas personas, que no existen",
    "style": "Estilo",
    "consent": (
        "Usa solo fotos de personas que estén de acuerdo. Las fotos las procesa únicamente este "
        "servidor, nadie más las ve, no entrenan nada y se borran en menos de una hora."
    ),
    "faces": "Caras encontradas: pulsa una para dejarla fuera o recuperarla",
    "faces_alt": "La foto con un marco numerado en cada cara",
    "faces_chosen": "Caras que se dibujan",
    "tab_stylize": "Dibujar",
    "tab_variations": "Variaciones",
    "tab_reference": "Modelo",
    "tab_compare": "Comparar",
    "result": "Antes y después: arrastra el tirador",
    "view": "Mostrar",
    "portrait": "Retrato",
    "full": "Foto entera",
    "download": "Descargar PNG",
    "strength": "Fuerza",
    "strength_info": "0 vuelve a dibujar la foto, 1 es el estilo completo",
    "keep_color": "Mantener mis colores",
    "keep_color_info": "Cuánto vuelve de los colores de la foto",
    "psi": "Carácter",
    "psi_info": "psi: más bajo se acerca a la cara media, con menos fallos",
    "refine": "Afinar el parecido",
    "refine_info": "Pasos de optimización; unos segundos por cada diez",
    "reset": "Restablecer los controles",
    "again": "Lo mismo en Python, en la terminal o por HTTP",
    "code_python": "Python",
    "code_shell": "Terminal",
    "code_http": "HTTP",
    "level": "Qué puede cambiar",
    "level_3": "Rasgos, pelo y colores (3)",
    "level_6": "Pelo, ropa y colores (6)",
    "level_9": "Colores (9)",
    "level_12": "Colores finos (12)",
    "seed": "Semilla",
    "surprise": "Sorpréndeme",
    "draw": "Dibujar ocho",
    "variations": "Elige una para seguir con ella",
    "variations_hint": (
        "Una foto, ocho aspectos. Pulsa *Sorpréndeme* y elige uno: los controles de abajo cambian "
        "solo ese."
    ),
    "picked": "Elegida: semilla {seed}. Los controles cambian ahora esta imagen.",
    "reference": "Imagen modelo",
    "reference_alt": "La imagen cuyo aspecto se toma",
    "references": "O sigue una de estas",
    "whole": "El modelo ya es un retrato recortado: no buscar una cara en él",
    "alpha": "Parte del modelo",
    "follow": "Seguir el modelo",
    "stop": "Parar",
    "reference_hint": (
        "Un modelo nuevo se estudia una vez, medio minuto en un procesador; después se guarda y los "
        "controles responden enseguida. Los ejemplos ya están estudiados."
    ),
    "studying": "Estudiando el modelo",
    "stopped": (
        "Parado tras {steps} pasos: es lo mejor hasta aquí. Seguir el modelo otra vez empieza de "
        "nuevo."
    ),
    "no_reference": "Añade una imagen modelo o elige uno de los ejemplos.",
    "compare": "Comparar los métodos",
    "compare_hint": (
        "Tu foto, recortada una vez, con cada método que puede funcionar en esta máquina; con lo que "
        "cuesta y lo cerca que queda el retrato de la foto."
    ),
    "pair": "Junto a la foto",
    "table_png": "Descargar como PNG",
    "table_json": "Descargar como JSON",
    "working": "Trabajando",
    "looking": "Buscando caras",
    "no_photo": "Añade primero una foto: súbela, hazla o pégala.",
    "no_faces_chosen": "Ninguna cara está elegida. Recupera una para verla dibujada.",
    "done": "{faces} en {seconds:.1f} s · {style}",
    "one_face": "1 cara",
    "n_faces": "{count} caras",
    "face": "Cara {number}",
    "NoFaceError": (
        "No se encontró ninguna cara. Usa una foto con la cara derecha, nítida y sin tapar."
    ),
    "FaceTooSmallError": (
        "La cara es demasiado pequeña. Desde 200 píxeles se ve bien; usa una foto más grande."
    ),
    "NotAnImageError": (
        "Este archivo no es una imagen legible. Usa JPEG, PNG, WebP, AVIF, TIFF, BMP o GIF."
    ),
    "ImageTooLargeError": "Esta imagen tiene demasiados píxeles. Redúcela antes.",
    "ImageTooSmallError": "Esta imagen tiene muy pocos píxeles para una cara. Usa una más grande.",
}
